"""What the commands of operators share."""

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError


def sentence_of(error: ValidationError) -> str:
    """What Django has against a row, in one line: ``name: This field cannot be blank.``"""
    return " ".join(
        " ".join(told) if field == NON_FIELD_ERRORS else f"{field}: {' '.join(told)}"
        for field, told in error.message_dict.items()
    )
