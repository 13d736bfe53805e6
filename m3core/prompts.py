"""Prompt templates, by name and version; a log records which one it was made with."""

from __future__ import annotations

from dataclasses import dataclass

from data.errors import DataError, MismatchError


@dataclass(frozen=True, kw_only=True)
class PromptTemplate:
    """Text before and after the image placeholders.

    Attributes:
        name: Name with version, recorded in logs.
        before: Text before the image, after the tokenizer's own beginning-of-sequence token.
        after: Text after the image; ``{question}`` stands for the question.
    """

    name: str
    before: str
    after: str

    def text_after(self, question: str) -> str:
        """The text that follows the image.

        Raises:
            DataError: If the question is empty.
        """
        if not question.strip():
            raise DataError("the question is empty; ask something about the picture")
        return self.after.format(question=question.strip())


TEMPLATES = {
    template.name: template
    for template in (
        PromptTemplate(name="scenes-1", before="", after="{question} answer:"),
        # llava/conversation.py, conv_vicuna_v1: M3 was trained with it (--version v1) and is
        # evaluated with it (--conv-mode vicuna_v1). The image stands between the two texts,
        # which are tokenised apart (mm_utils.tokenizer_image_token).
        PromptTemplate(
            name="vicuna-1",
            before="A chat between a curious user and an artificial intelligence assistant. "
            "The assistant gives helpful, detailed, and polite answers to the user's questions. "
            "USER: ",
            after="\n{question} ASSISTANT:",
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
