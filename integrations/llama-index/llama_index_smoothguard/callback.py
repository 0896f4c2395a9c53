"""SmoothGuardCallbackHandler: for stacks that can take callbacks only; it observes and raises, it cannot replace."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.callbacks.schema import CBEventType, EventPayload

from llama_index_smoothguard.answers import answer_of
from llama_index_smoothguard.capture import is_sampling
from llama_index_smoothguard.messages import Reader
from sg_guardrails import Answer, GuardError, MediaError, Policy, Prompt, SmoothGuard, UnsafeOutputError, edge

# ruff: noqa: ARG002 - the handlers' arguments are LlamaIndex's interface

MOST_CALLS = 4096
"""LLM calls that may be under way at once; streams that nobody finishes never end, so that the oldest must go."""
OTHERS: list[CBEventType] = [kind for kind in CBEventType if kind is not CBEventType.LLM]


class SmoothGuardCallbackHandler(BaseCallbackHandler):
    """Judges each LLM's answer when the call ends, and raises UnsafeOutputError where it would be withheld.

    For ``Settings.callback_manager = CallbackManager([handler])``, set before engines are built: an engine puts the
    manager of the settings in place of its LLM's own. LlamaIndex lets the errors of these handlers through, unlike
    those of its instrumentation. Works in ``chat``, ``achat``, ``complete`` and ``acomplete``, and so in engines that
    use them. In streams it raises too, but after the chunks were delivered. Media that cannot be seen are refused
    before the LLM runs, in every form. LlamaIndex calls handlers on the thread of the call: in async code the judging
    holds the event loop, which `SmoothGuardLLM` and `SmoothGuardQueryEngine` do not.

    Args:
        policy: A shipped policy's name, a path, or a Policy.
        guard: A guard of your own; by default one on this machine, as the policy says.
        model: The MLLM's id or path in place of the policy's.
        device: ``auto`` or a torch device.
        media_root: The one folder from which files that messages name are read. By default none is.
    """

    def __init__(
        self,
        policy: str | Path | Policy = "default",
        *,
        guard: SmoothGuard | None = None,
        model: str | None = None,
        device: str = "auto",
        media_root: str | Path | None = None,
    ) -> None:
        super().__init__(event_starts_to_ignore=OTHERS, event_ends_to_ignore=OTHERS)
        self._given = guard
        self._settings = (policy if guard is not None else Policy.load(policy), model, device)
        self._media_root = None if media_root is None else Path(media_root)
        self._lock = Lock()
        self._asked: OrderedDict[str, Prompt | None] = OrderedDict()

    @property
    def guard(self) -> SmoothGuard:
        """The guard in use; built (not loaded) at first sight."""
        if self._given is None:
            from sg_guardrails.local import shared_guard  # noqa: PLC0415 - brings torch; a guard of your own needs none

            self._given = shared_guard(*self._settings)
        return self._given

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: Mapping[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",
        **kwargs: Any,
    ) -> str:
        """Read what the LLM is asked. Raises UnsafeOutputError, before the LLM runs, where media cannot be judged."""
        if event_type is CBEventType.LLM and not is_sampling():
            prompt = self._read(payload or {})
            with self._lock:
                self._asked[event_id] = prompt
                while len(self._asked) > MOST_CALLS:
                    self._asked.popitem(last=False)
        return event_id

    def on_event_end(
        self,
        event_type: CBEventType,
        payload: Mapping[str, Any] | None = None,
        event_id: str = "",
        **kwargs: Any,
    ) -> None:
        """Judge what the LLM said.

        Raises:
            UnsafeOutputError: If the guard would not hand it on.
            GuardError: If the call's start was not seen, so that it cannot be judged.
        """
        if event_type is not CBEventType.LLM or is_sampling():
            return
        with self._lock:
            known = event_id in self._asked
            prompt = self._asked.pop(event_id, None)
        answer = _said(payload or {})
        if answer is None:  # the LLM failed, or its stream held nothing: there is no answer
            return
        if not known:
            raise GuardError("an LLM ended whose start was not seen: its answer cannot be judged")
        if prompt is not None:
            edge.withhold(self.guard.review(prompt, answer), "raise")

    def start_trace(self, trace_id: str | None = None) -> None:
        """Traces are of no concern here."""

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        """Traces are of no concern here."""

    def _read(self, payload: Mapping[str, Any]) -> Prompt | None:
        """The prompt; None where its media cannot be judged and the policy only observes."""
        policy = self.guard.policy
        asked = payload.get(EventPayload.MESSAGES, payload.get(EventPayload.PROMPT, ""))
        options = payload.get(EventPayload.ADDITIONAL_KWARGS) or {}
        try:
            return Reader(policy.limits.media, policy.unresolvable_media, self._media_root).call(asked, options)
        except MediaError as error:
            outcome = edge.refused(self.guard, error, None)
            if policy.mode == "observe":
                return None
            raise UnsafeOutputError(f"the model was not asked: {error}", outcome) from error


def _said(payload: Mapping[str, Any]) -> Answer | None:
    """The answer; None where the call failed or said nothing."""
    if (response := payload.get(EventPayload.RESPONSE)) is not None:
        return answer_of(response.message)
    completed = payload.get(EventPayload.COMPLETION)
    return None if completed is None else Answer(completed.text)
