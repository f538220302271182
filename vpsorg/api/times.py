from datetime import datetime


def utc(moment: datetime) -> str:
    """As the contract writes times: ``2025-01-10T14:30:00Z``, no fraction of a second."""
    return f"{moment.isoformat()[:19]}Z"
