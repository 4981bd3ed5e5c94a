"""Which validation images a run's best epoch gets right, kept so that two runs can be compared image by image."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmnist_lit.run.files import read_json, write_json

ANSWERS = "val_correct.json"


@dataclass(frozen=True)
class Answers:
    """A bit an image.

    Attributes:
        images: a fingerprint of the validation images and their order.
        num_images: how many they are.
        correct: of so many binary digits, the first for the first image; 1 where the answer is right.
    """

    images: str
    num_images: int
    correct: int

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.correct.bit_count() / self.num_images

    def same_images(self, other: "Answers") -> bool:
        """Whether both are to the same questions."""
        return (self.images, self.num_images) == (other.images, other.num_images)


def pack(images: str, correct: Iterable[bool]) -> dict[str, Any]:
    """Answers as plain values: the bits as one hexadecimal number."""
    digits = "".join("01"[answer] for answer in correct)
    return {"images": images, "num_images": len(digits), "correct": f"{int(digits, 2):0{(len(digits) + 3) // 4}x}"}


def write_answers(run_dir: Path, epoch: int, packed: dict[str, Any]) -> None:
    """Keep the answers of an epoch (from 1) in a run folder."""
    write_json(run_dir / ANSWERS, {"epoch": epoch, **packed})


def read_answers(run_dir: Path, epoch: Any, accuracy: float) -> Answers | None:
    """The answers in a run folder; None if there are none, or not those of this epoch with this accuracy."""
    content = read_json(run_dir / ANSWERS)
    try:
        answers = Answers(str(content["images"]), int(content["num_images"]), int(content["correct"], 16))
        is_this = content["epoch"] == epoch and abs(answers.accuracy - accuracy) < 0.5 / answers.num_images
    except (LookupError, TypeError, ValueError, ArithmeticError):
        return None
    return answers if is_this and 0 <= answers.correct < 1 << answers.num_images else None
