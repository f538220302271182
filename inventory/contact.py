"""Which hosts can be spoken with: a circuit breaker for each, kept in its row for all processes.

A host that does not answer is left alone for a while that doubles, up to half a minute; then one caller
tries it, and the others still do not wait for it.  So a host that hangs costs a worker ten seconds now and
then, instead of ten seconds for everything that is asked of it.
"""

from datetime import timedelta

from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from inventory.models import Hypervisor

LONGEST_PAUSE_S = 30
# How long the one who tries may take; should he die, the next one tries.
TRIAL = timedelta(seconds=20)
# One lost answer is a libvirtd that restarts; after the second no new server is put there.
UNREACHABLE_AFTER = 2
CONTACT = ["silences", "ask_again_at", "is_reachable", "is_ready", "last_error", "last_seen_at"]


def may_be_asked(hypervisor: Hypervisor) -> bool:
    """Whether to speak with this host now, by its row as it was read.  Of many who ask, one may try it."""
    if hypervisor.ask_again_at is None:
        return True
    if hypervisor.ask_again_at > timezone.now():
        return False
    silent = Hypervisor.objects.filter(pk=hypervisor.pk, ask_again_at=hypervisor.ask_again_at)
    return silent.update(ask_again_at=Now() + TRIAL) == 1


def record_answer(hypervisor: Hypervisor, *, error: str = "") -> None:
    """It answers.  With an ``error``, for staff, something is wrong there, and nothing new is put there."""
    if not error:
        hypervisor.last_seen_at = timezone.now()
    hypervisor.silences, hypervisor.ask_again_at = 0, None
    hypervisor.is_reachable, hypervisor.is_ready, hypervisor.last_error = True, not error, error
    hypervisor.save(update_fields=CONTACT)


@transaction.atomic
def record_silence(hypervisor: Hypervisor, error: str) -> None:
    """It did not answer: it is asked again after a pause, and unreachable from the second time on.

    However many ask at the same time, it is silent once.
    """
    locked = Hypervisor.objects.select_for_update().only(*CONTACT).get(pk=hypervisor.pk)
    if locked.silences != hypervisor.silences:
        # Others who asked at the same time have counted this silence already.
        hypervisor.silences, hypervisor.ask_again_at = locked.silences, locked.ask_again_at
        return
    hypervisor.silences += 1
    pause = timedelta(seconds=min(LONGEST_PAUSE_S, 2 ** min(locked.silences, 10)))
    hypervisor.ask_again_at = timezone.now() + pause
    hypervisor.is_reachable, hypervisor.last_error = hypervisor.silences < UNREACHABLE_AFTER, error
    hypervisor.save(update_fields=CONTACT)
