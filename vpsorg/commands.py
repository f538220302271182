"""What the commands of operators share."""

from django.core.exceptions import ValidationError


def sentence_of(error: ValidationError) -> str:
    """What Django has against some fields, in one line: ``name: This field cannot be blank.``"""
    return " ".join(f"{field}: {' '.join(told)}" for field, told in error.message_dict.items())
