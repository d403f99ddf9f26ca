"""Writes small copies of RouteLLM's response files, in the layout of its repository."""

import csv
import json
from pathlib import Path

WEAK, STRONG = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"


def write_responses(path: Path, rows: list[tuple[str, bool, bool]]) -> None:
    """Write a CSV file of (prompt, weak right, strong right), with answers that hold commas and line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", WEAK, STRONG, f"{WEAK}_response", f"{STRONG}_response"])
        writer.writerows([prompt, weak, strong, "It is\n4, I think", 'So "4"'] for prompt, weak, strong in rows)


def write_contaminated(folder: Path, *prompts: str) -> None:
    lines = [json.dumps({"train_prompt": prompt, "eval_prompt": prompt}) for prompt in prompts]
    (folder / "contaminated_prompts.jsonl").write_text("\n".join(lines))


def write_mt_bench(folder: Path, grades: dict[int, tuple[float, float]]) -> None:
    """Write questions and both models' grades (weak, strong) of the first turn; the second turn's are 1 lower."""
    folder.mkdir(parents=True, exist_ok=True)
    questions = [{"question_id": number, "turns": [f"question {number}", "and then?"]} for number in grades]
    judged = [
        {"question_id": number, "model": model, "turn": turn + 1, "score": grade - turn}
        for number, pair in grades.items()
        for model, grade in zip((WEAK, STRONG), pair, strict=True)
        for turn in (0, 1)
    ]
    for name, rows in (("question.jsonl", questions), ("judgements.jsonl", judged)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
