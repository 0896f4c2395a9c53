"""What a record keeps beside digests and figures, and what is taken out of the texts that it keeps."""

from __future__ import annotations

from sg_guardrails.core.section import Masked, Section

PRIVATE = (
    r"(?s)-----BEGIN [A-Z ]+-----(?P<value>.*?)(?:-----END [A-Z ]+-----|$)",
    r"\beyJ(?P<shape>[\w-]{8,}\.[\w-]{8,}\.[\w-]*)",
    r"\b(?:sk|pk|rk|gh[oprsu]|github_pat|glpat|hf|xox[abprs]|AKIA|ASIA|AIza)[-_]?"
    r"(?P<shape>[A-Za-z0-9][-_A-Za-z0-9]{14,})",
    r"(?i)\b(?:\w+[_-])?(?:password|passwd|passcode|secret|token|api[ _-]?key|authorization|bearer)\b[\"']?"
    r"(?:\s*(?:[:=]|is\b)\s*|\s+)(?:(?:bearer|basic)\s+)?"
    r"(?:\"(?P<quoted>[^\"]+)|'(?P<single>[^']+)|(?P<value>[^\s\"',;]\S*))",
    r"(?i)(?P<shape>[a-z0-9._%+-]+)@[a-z0-9-]+(?:\.[a-z0-9-]+)+",
    r"(?P<shape>\+?\d(?:[ ().-]{0,2}\d){7,})",
)
"""What `RecordSection.redact` takes out by default, RE2: private keys, JSON web tokens, vendors' API keys, what follows
a word like "password", an e-mail address before its @, and runs of eight or more digits (telephone, card and account
numbers). Only the named groups go, so that what decided stays: the word "password", an address's domain."""


class RecordSection(Section):
    """What the log event holds beside digests and figures."""

    include_text: bool = False
    """Write the questions and the answers too. Off: they may hold personal data or the attack's own words."""
    redact: tuple[Masked, ...] = PRIVATE
    """RE2 patterns whose matches are replaced before a text is written. Of one with named groups only these are, and a
    group named ``shape`` keeps its form (letters become x, digits 0). A list of your own replaces the default one."""
