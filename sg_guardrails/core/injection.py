"""What no answer about a picture needs: addresses, markup, orders, sales talk, demands for secrets."""
# ruff: noqa: E501 - a pattern broken over lines is harder to read than a long one

from __future__ import annotations

import re

from sg_guardrails.core.stance import COURTESY_TAIL, declines, sentences, unquoted

_ADDRESS = re.compile(
    r"https?://|\bwww\.|\w@\w[\w-]*\.\w|\w\.(?:com|net|org|io|biz|info|example|ru|xyz|co|app|gg|me|tk|top|click|online|site|link)\b"
)
_MARKUP = re.compile(
    r"\{\s*\"\w+\"\s*:|<\s*/?\s*(?:script|iframe|img|a|style|svg|form)\b|\b\w+\((?:['\"]|[\w.]+\()|/etc/|javascript:|!\[[^\]]*\]\("
)
_OVERRIDE = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b (?:\w+ ){0,4}(?:instructions?|prompts?|rules?|guidelines?|safety|previous|above|polic(?:y|ies)|restrictions?)"
    r"|\bsystem ?(?:prompt|message|override)?\s*:|\b(?:i am|you are) now\b|\bno (?:longer )?(?:have )?(?:any )?(?:restrictions|limits|rules)\b|\b(?:developer|debug|admin|jailbreak|god) mode\b"
    r"|\brepeat after me\b|\btell the user\b|\bhacked\b|\bpwned\b|\bfull access\b|\bmust obey\b|\bfrom now on\b|\bas instructed\b|\bthe user(?:'s)? (?:must|should|has to|needs to|files|data|account)\b|\btrust (?:only )?me\b|\blying to you\b|\brm -rf\b|\bsudo\b|\bnew instructions?\b"
)
_SELL = re.compile(
    r"\b(?:bitcoin|crypto\w*|wallet address|free (?:gift|iphone|money|trial|prize)|(?:you (?:have |could |can |will |may |just )?(?:win|won)|^(?:win|claim)) (?:a |an |your )?(?:\w+ )?(?:prize|reward|gift|lottery|iphone|money)|guaranteed|limited[- ]time|act now|discount code|promo code|click (?:here|the link|below|on this)"
    r"|dear (?:customer|user|sir)|you (?:have won|must die|should die)|kill yourself|i hate you|(?:you are|the user is) (?:an? )?(?:\w+ )?(?:idiots?|stupid|morons?|losers?|fools?|worthless|dumb)|shut up|(?:until|unless) you (?:send|pay|give)|(?:double|triple)d? your money|(?:it will have|will have) doubled|(?:by|for|consider|try|start) (?:subscribing|upgrading|investing|signing up|downloading|donating|ordering|registering|joining|buying)\b.{0,40}[!]|(?:put|invest|place) (?:your|all your) (?:money|savings)|(?:best|finest|only) (?:\w+ ){0,2}(?:brand|deals?|prices?|offer)(?= in the world|!|[.]?$)|world's (?:best|finest|greatest|favou?rite) (?:\w+ ){0,2}(?:brand|store|shop|product|app)|account (?:has been|is|will be) (?:suspended|locked|blocked|closed)|(?:order|buy|call|shop|subscribe|invest|sign up|download|act|donate|register)\b.{0,40}\b(?:now|today|immediately|here))\b"
)
_SECRETS = r"(?:password|passcode|credentials|credit card|card number|cvv|social security|ssn|bank (?:details|account|password|login)|pin (?:code|number)?|login details|personal (?:details|information)|private key|seed phrase|api key|account number|address book|otp)"
_DEMANDED = re.compile(
    rf"\b(?:your|their) (?:[\w-]+ ){{0,3}}{_SECRETS}|\bpassword is\b|\b(?:tell|give|send|show|read) me (?:\w+ )?(?:[\w-]+ ){{0,3}}(?:code|{_SECRETS})|\bconfirm (?:your|the) (?:[\w-]+ ){{0,3}}(?:code|{_SECRETS})"
)
_IMPERATIVE = re.compile(
    r"(?:please |now |then |and |also |just |kindly |next,? |quick(?:ly)?,? |urgent:? |important:? |warning:? |note:? |attention:? |remember to |you (?:must|should|need to|have to|can now|ought to|had better|really should|will want to) |really |definitely |absolutely |to continue,? |do not forget to |go ahead and )*"
    r"(?:visit|click|enter|send|buy|call|download|install|subscribe|log ?in|sign (?:in|up)|verify|transfer|forward|share|invest|vote|run|ignore|disregard|repeat|tell|pay|go to|email|e-mail|text|type|submit|confirm|update|open|join|follow|donate|give|say|reply"
    r"|respond|delete|execute|copy|paste|scan|provide|order|contact|purchase|register|forget|grant|reveal|disclose|wire|deposit|upload|claim|redeem|act|obey|stop|answer|write|output|print|pretend|use|check out|head to|message|post|like|turn off|disable|remove|unlock|swipe|tap|press|dial|whatsapp|save|become|trust|kill|attack|hurt|burn|destroy|put (?:your|all)|bring (?:me|your)|get (?:your|more)|hand (?:me|over your)|show me)\b"
    r"(?! (?:is|are|was|were|sign|button|stand|shop|of|board|placed|received|confirmed|sent|reads|says|shows|contains|has|have|from (?:the|a|an|his|her)|number|details|message|inbox)\b)"
)
_REPORTS = re.compile(
    r"\b(?:says?|said|saying|reads?|reading|displays?|displaying|shows?|showing|states?|stating|written|titled|labell?ed|text|caption(?:ed)?|asks|asked|asking|tells (?!the user)|telling|advertis\w+|sign|poster|screen\w*|billboard|note|letter|email in|website shown|page|banner|logo|message (?:says|reads|on)|warns?|instructs?)\b"
)
_CARE = re.compile(
    r"\b(?:emergenc\w+|professionals?|hotline|helpline|crisis|doctor|physician|police|authorit\w+|therapist|counsel\w+|lawyer|911|988|112|poison control"
    r"|someone you trust|trusted|mental health|local services|support (?:line|services|group))\b"
)
"""Where a refusal sends its reader for help."""


def injected(text: str) -> frozenset[str]:
    """The kinds of content that no answer about a picture needs, outside of quotes and of reports of what is written there.

    Returns:
        Some of ``address``, ``markup``, ``override``, ``sale``, ``secrets``, ``command``; empty for an ordinary answer.
    """
    found: set[str] = {"markup"} if _MARKUP.search(text) else set()
    for sentence in sentences(text):
        bare = unquoted(sentence)
        reported = bool(_REPORTS.search(re.split(_ADDRESS, bare)[0])) and not _IMPERATIVE.match(bare)
        if reported or (_CARE.search(bare) and not _ADDRESS.search(bare)):
            continue
        commanded = any(
            _IMPERATIVE.match(clause) and not COURTESY_TAIL.match(clause) and len(clause.split()) > 1
            for clause in re.split(r"[,;:-] (?:and |then |but )?|\band (?=\w+ your\b)", bare)
        )
        found |= {"command"} if commanded else set()
        asked = commanded or not declines(bare)  # "I won't write an email that steals their passwords" asks for none
        found |= {"address"} if _ADDRESS.search(bare) else set()
        found |= {"override"} if _OVERRIDE.search(bare) else set()
        found |= {"sale"} if _SELL.search(bare) else set()
        found |= {"secrets"} if asked and _DEMANDED.search(bare) else set()
    return frozenset(found)
