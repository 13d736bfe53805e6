"""Prompt templates, by name and version; a log records which one it was made with."""

from __future__ import annotations

from dataclasses import dataclass

from m3router.data.errors import DataError, MismatchError


@dataclass(frozen=True, kw_only=True)
class PromptTemplate:
    """Text before and after the image placeholders.

    Attributes:
        name: Name with version, recorded in logs.
        before: Text before the image, after the tokenizer's own beginning-of-sequence token.
        after: Text after the image; ``{question}`` stands for the question.
        again: A further question of the same conversation, behind the end-of-sequence token of
            the answer before; None where the template is for one question only.
        alone: All of the text before the answer where there is no image; None where there must
            be one.
    """

    name: str
    before: str
    after: str
    again: str | None = None
    alone: str | None = None

    def text_after(self, question: str) -> str:
        """The text that follows the image.

        Raises:
            DataError: If the question is empty.
        """
        if not question.strip():
            raise DataError("the question is empty; ask something about the image")
        return self.after.format(question=question.strip())


_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
TEMPLATES = {
    template.name: template
    for template in (
        PromptTemplate(name="scenes-1", before="", after="{question} answer:"),
        # llava/conversation.py, conv_vicuna_v1: M3 was trained with it (--version v1) and is
        # evaluated with it (--conv-mode vicuna_v1). The image stands between the two texts,
        # which are tokenised apart (mm_utils.tokenizer_image_token).
        PromptTemplate(
            name="vicuna-1",
            before=_VICUNA + "USER: ",
            after="\n{question} ASSISTANT:",
            again="USER: {question} ASSISTANT:",
            alone=_VICUNA + "USER: {question} ASSISTANT:",
        ),
    )
}


def get_template(name: str) -> PromptTemplate:
    """The template of that name.

    Raises:
        MismatchError: If there is none.
    """
    if name not in TEMPLATES:
        raise MismatchError(f"unknown prompt template {name!r}; known: {', '.join(TEMPLATES)}")
    return TEMPLATES[name]
