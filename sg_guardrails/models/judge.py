"""A model as LLM judge, here or served: the probability of its yes against its no, where it says the one or other."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer, BatchFeature

from sg_guardrails.core.errors import GuardError, ModelError, SamplingError
from sg_guardrails.core.forking import Lock
from sg_guardrails.core.inquiry import Inquiry, Judge, spoken
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.serving import ModelSection
from sg_guardrails.core.terms import Judged, Question, parts
from sg_guardrails.models import hf
from sg_guardrails.models.checkpoints import load_checkpoint
from sg_guardrails.models.hub import pick_device
from sg_guardrails.models.loading import Handle
from sg_guardrails.models.remote import RemoteSampler, Token

_TOKENS = 8
"""Most tokens until the word must have come: some judges begin with line breaks."""
_SERVED_TOKENS = 16
"""The same where another tokenizer is at work."""
_SPELLINGS: tuple[Callable[[str], str], ...] = (str.lower, str.capitalize, str.upper)


class LocalJudge:
    """A Judge from a model in this process.

    Greedy decoding up to the first token that is no white space. It must begin ``yes`` or ``no`` (in the inquiry's own
    words), else that is an error; the score is ``P(yes) / (P(yes) + P(no))`` there.

    Args:
        load: Gives the model when it is first needed: the guard's own, or `text_model`.
    """

    def __init__(self, load: Callable[[], Handle]) -> None:
        self._load = load
        self._handle: Handle | None = None
        self._once = Lock()

    def warm_up(self) -> None:
        """Load now. Raises ModelError as a call would."""
        self._loaded()

    def _loaded(self) -> Handle:
        with self._once:
            if self._handle is None:
                self._handle = self._load()
            return self._handle

    def __call__(self, inquiries: Sequence[Inquiry]) -> NDArray[np.float32]:
        """``(N,)`` float32 in [0, 1].

        Raises:
            ModelError: If the model cannot be loaded, or does not chat.
            SamplingError: If it says neither word, cannot be shown the whole text, or fails while it runs.
        """
        handle = self._loaded()
        if handle.transcribes:
            raise ModelError(f"{handle.id} writes down speech and cannot judge: name another model for the judge")
        try:
            with handle.lock, torch.inference_mode():
                return np.array([_probability(handle, item) for item in inquiries], dtype=np.float32)
        except GuardError as error:
            raise SamplingError(f"{handle.id} cannot judge: {error}") from error
        except Exception as error:  # any of torch's or transformers' errors; none of them is a pass
            raise SamplingError(f"{handle.id} failed while judging: {type(error).__name__}") from error


class ServedJudge:
    """A Judge from a served model: the probability of its yes where the engine tells those of its tokens.

    One that does not (it leaves them out, or refuses to be asked for them) has said a word and nothing of how sure it
    is: 1 or 0 then.

    Args:
        engine: Asks the served model.
        writes_instruction: Whether the model's own chat template puts the instruction around the conversation.
    """

    def __init__(self, engine: RemoteSampler, *, writes_instruction: bool = False) -> None:
        self._engine, self._writes_instruction = engine, writes_instruction

    def __call__(self, inquiries: Sequence[Inquiry]) -> NDArray[np.float32]:
        """``(N,)`` float32 in [0, 1].

        Raises:
            ModelError: If the engine doesn't know the model or the key.
            SamplingError: If it says neither word, or stays silent.
        """
        prompts = [item.turns if self._writes_instruction else item.instruction for item in inquiries]
        said = self._engine.weigh(prompts, max_tokens=_SERVED_TOKENS)
        return np.array(
            [_weighed(text, tokens, item) for (text, tokens), item in zip(said, inquiries, strict=True)],
            dtype=np.float32,
        )


def _weighed(text: str, tokens: Sequence[Token], item: Inquiry) -> float:
    """``P(yes) / (P(yes) + P(no))`` at the first token that holds a letter, else 1 or 0."""
    word = spoken(text, item)
    first = next((token for token in tokens if _letters(token.text)), None)
    if first is None:
        return word
    yes, no = (
        sum(
            chance for said, chance in first.likeliest.items() if (start := _letters(said)) and wanted.startswith(start)
        )
        for wanted in (item.yes, item.no)
    )
    return yes / (yes + no) if yes + no > 0 else word


def _letters(token: str) -> str:
    """The letters that a token begins with, marks and white space before them aside."""
    found = re.search(r"[^\W\d_]+", token)
    return found[0].casefold() if found else ""


def local_judges(policy: Policy) -> dict[str, Judge]:
    """The judges that a policy's rules name, as models of this process or behind the endpoints that it names.

    Nothing loads before its use.
    """
    asked = {part.judge for rule in policy.rules for part in parts(rule.when) if isinstance(part, Judged)}
    return {question.key: _judge(question, policy.model) for question in asked}


def _judge(question: Question, named: ModelSection) -> Judge:
    if question.model == "guard":
        if named.endpoint is not None:
            return ServedJudge(RemoteSampler(named.id, named.endpoint))
        return LocalJudge(partial(hf.load_section, named))
    if question.endpoint is not None:
        engine = RemoteSampler(question.model, question.endpoint)
        return ServedJudge(engine, writes_instruction=question.conversation)
    return LocalJudge(partial(text_model, question.model, named.device, question.revision))


@lru_cache(maxsize=4)
def text_model(model_id: str, device: str = "auto", revision: str | None = None) -> Handle:
    """A chat model of text alone, Llama Guard or ShieldGemma say, as a Handle; loaded once.

    Raises:
        ModelError: If it can't be had. No code of a checkpoint is run, and only safetensors are read.
    """
    where = pick_device(device)
    dtype = torch.float32 if where.type == "cpu" else "auto"
    loaded: tuple[Any, Any] = load_checkpoint(
        model_id,
        "judge",
        lambda source, local: (
            AutoTokenizer.from_pretrained(source, revision=revision, local_files_only=local),
            AutoModelForCausalLM.from_pretrained(
                source, revision=revision, local_files_only=local, dtype=dtype, use_safetensors=True
            ),
        ),
        revision=revision,
    )
    tokenizer, model = loaded
    return Handle.of(model_id, model.to(where), TextProcessor(tokenizer))


@dataclass(frozen=True, slots=True)
class TextProcessor:
    """A tokenizer in a processor's place, as a Handle holds one."""

    tokenizer: Any
    guideline: str | None = None
    """What a template of ShieldGemma's kind wants beside the conversation."""

    @property
    def chat_template(self) -> Any:
        """The checkpoint's own."""
        return self.tokenizer.chat_template

    def apply_chat_template(self, turns: list[dict[str, Any]], **settings: Any) -> str:
        """The conversation as the template writes it."""
        extra = {} if self.guideline is None else {"guideline": self.guideline}
        written: str = self.tokenizer.apply_chat_template(turns, **settings, **extra)
        return written

    def __call__(self, *, text: list[str], return_tensors: str, add_special_tokens: bool) -> BatchFeature:
        """Token ids and attention mask."""
        encoded = self.tokenizer(text, return_tensors=return_tensors, add_special_tokens=add_special_tokens)
        return BatchFeature(dict(encoded))


def _probability(handle: Handle, item: Inquiry) -> float:
    inputs = _encode(handle, item)
    most = getattr(handle.model.config.get_text_config(), "max_position_embeddings", None)
    if most is not None and inputs["input_ids"].shape[1] + _TOKENS > most:
        raise SamplingError(f"the text is too long for it: {inputs['input_ids'].shape[1]} tokens of {most}")
    generate: Any = handle.model.generate
    written = generate(**inputs, max_new_tokens=_TOKENS, return_dict_in_generate=True, output_logits=True)
    tokenizer = handle.processor.tokenizer
    said = written.sequences[0, -len(written.logits) :]
    yes, no = (_first_tokens(tokenizer, word) for word in (item.yes, item.no))
    for token, logits in zip(said.tolist(), written.logits, strict=True):
        if not tokenizer.decode([token], skip_special_tokens=True).strip() and token not in yes | no:
            continue
        if token not in yes ^ no:
            break
        chances = logits[0].float().softmax(-1)
        for_yes, for_no = (float(chances[sorted(ids)].sum()) for ids in (yes - no, no - yes))
        return for_yes / (for_yes + for_no)
    raise SamplingError(f"it said neither {item.yes!r} nor {item.no!r}")


def _encode(handle: Handle, item: Inquiry) -> BatchFeature:
    """The instruction, or the conversation alone where the checkpoint's template writes the instruction itself."""
    template = str(getattr(handle.processor, "chat_template", None) or handle.processor.tokenizer.chat_template or "")
    if not item.signature or item.signature not in template:
        return hf.encode(handle, item.instruction)
    processor = handle.processor
    if isinstance(processor, TextProcessor) and item.principle:
        processor = TextProcessor(processor.tokenizer, item.principle)
    judging = partial(Handle, handle.id, handle.model, processor, handle.device, handle.dtype, handle.takes)
    inputs = hf.encode(judging(), item.turns)
    shown = handle.processor.tokenizer.decode(inputs["input_ids"][0])
    if not _same_text(item.text, shown):
        raise SamplingError("its chat template leaves out the text under judgement")
    return inputs


def _same_text(text: str, shown: str) -> bool:
    """Whether `shown` holds `text`, white space aside (tokenizers change it)."""
    return "".join(text.split()) in "".join(shown.split())


def _first_tokens(tokenizer: Any, word: str) -> set[int]:
    """The tokens that a spelling of `word` begins with."""
    spelled = [lead + spell(word) for lead in ("", " ", "\n") for spell in _SPELLINGS]
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in spelled]
    blank = {token for row in ids for token in row if not tokenizer.decode([token]).strip()}
    unknown = tokenizer.unk_token_id
    firsts = (next((token for token in row if token not in blank), None) for row in ids)
    return {token for token in firsts if token is not None and token != unknown}
