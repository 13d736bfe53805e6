"""The rules that read receipts, and the study from reader to verdict, on made-up receipts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from experiments.receipts import __main__ as study
from experiments.receipts import page
from experiments.receipts.examples import read_keys, reference
from experiments.receipts.reader import QUESTIONS, Readings, megapixels, ocr_reader, shown_size
from experiments.receipts.rules import FIELDS, NOT_FOUND, Line, amount_of, date_of, rows_of
from m3router.data.errors import DataError
from m3router.m3core.opening import open_model
from m3router.m3core.options import Failure, Request

RECEIPT = (
    ("TAX INVOICE", 0, 0),
    ("99 SPEED MART S/B (519537-X)", 0, 20),
    ("LOT P.T. 2811, JALAN ANGSA", 0, 40),
    ("INVOICE NO: 18418/102", 0, 60),
    ("05:38P", 0, 80),
    ("Date:04-06-1817:38", 90, 81),
    ("SUB TOTAL", 0, 100),
    ("19.70", 90, 100),
    ("Total Sales RM", 0, 120),
    ("20.90", 90, 121),
    ("CASH RM", 0, 140),
    ("50.00", 90, 140),
    ("GST Summary", 0, 160),
    ("Total: 18.10", 0, 180),
)
"""Text, left and top of the lines of a receipt."""


def lines_of(receipt=RECEIPT, *, sure=0.9):
    return [
        Line(text=text, confidence=sure, left=left, top=top, bottom=top + 12)
        for text, left, top in receipt
    ]


def found_in(receipt):
    rows = rows_of(lines_of(receipt))
    return {field: find(rows).text for field, find in FIELDS.items()}


def test_what_is_found_on_a_receipt():
    assert found_in(RECEIPT) == {
        "total": "20.90",
        "date": "2018-06-04",
        "company": "99speedmar",
        "address": "lotpt28l",
    }


def test_what_is_not_there_is_not_found():
    assert set(found_in([("米米粥", 0, 0)]).values()) == {NOT_FOUND}
    missing = FIELDS["total"](rows_of([]))
    assert missing.confidence == 0
    assert np.isfinite(missing.logprob)


def test_without_a_total_the_largest_amount_that_was_not_paid():
    receipt = [("Rice 2.00", 0, 0), ("Tea 3.10", 0, 20), ("CASH", 0, 40), ("50.00", 90, 40)]
    assert found_in(receipt)["total"] == "3.10"


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("Date:09/03/2018", "2018-03-09"),
        ("28 MAR 18", "2018-03-28"),
        ("05-JAN-2017", "2017-01-05"),
        ("20180428", "2018-04-28"),
        ("2016/05/01", "2016-05-01"),
        ("12/28/2017 10:00", "2017-12-28"),
        ("25/03/201812:44", "2018-03-25"),
        ("TEL 07-3863793", None),
        ("14.00 15.00", None),
    ],
)
def test_dates(text, date):
    assert date_of(text) == date


@pytest.mark.parametrize(
    ("text", "amount"),
    [("RM1,234.50", "1234.50"), ("2 , 50", "2.50"), ("1O.O0", "10.00"), ("03.06.18", None)],
)
def test_amounts(text, amount):
    assert amount_of(text) == amount


def test_shown_sizes_never_enlarge():
    assert shown_size((800, 1600), 240) == (120, 240)
    assert shown_size((30, 40), 240) == (30, 40)
    assert megapixels(Image.new("RGB", (800, 1600)), "480") == pytest.approx(0.1152)


def test_the_door_opens_without_the_ocr_package():
    model = open_model("experiments.receipts.reader:ocr_reader")
    assert [option.name for option in model.options] == ["240", "320", "480", "640", "960", "1280"]
    assert model.cost_unit == "megapixels"


class Drawn:
    """Reads made-up receipts: the colour says which one, and how small it can still be read."""

    def __init__(self):
        self.calls = 0

    def __call__(self, pixels):
        self.calls += 1
        number, needs = int(pixels[..., 0].max()), int(pixels[..., 1].max())
        if len(pixels) < needs:
            return []
        return lines_of([*RECEIPT[:9], (f"{number}.50", 90, 121)])


def test_an_image_is_read_once_for_all_its_questions(tmp_path):
    engine, path = Drawn(), tmp_path / "readings.jsonl"
    image = Image.new("RGB", (20, 40), (7, 30, 0))
    asked = [
        Request(image=image, question=question, option=option)
        for option in ("20", "40", "80")
        for question in QUESTIONS.values()
    ]
    model = ocr_reader(engine, readings=path, sides=(20, 40, 80))
    answers = model.answer(asked)
    assert engine.calls == 2  # at 80 it is as large as at 40
    assert [one.text for one in answers[::4]] == [NOT_FOUND, "7.50", "7.50"]
    assert [one.usage.pixels for one in answers[::4]] == [200, 800, 800]
    assert len({one.usage.seconds for one in answers[:4]}) == 1  # each as if it were alone
    again = ocr_reader(engine, readings=path, sides=(20, 40, 80))
    assert [one.text for one in again.answer(asked)] == [one.text for one in answers]
    assert engine.calls == 2
    path.write_text("{}\n")
    with pytest.raises(DataError, match="line 1"):
        Readings(path)


def test_another_question_is_an_error_record():
    model = ocr_reader(Drawn(), sides=(20, 40))
    request = Request(image=Image.new("RGB", (9, 9)), question="Who?", option="20")
    (told,) = model.answer([request])
    assert isinstance(told, Failure)
    assert "What is the total?" in told.message


def test_keys_are_put_into_the_form_of_answers(tmp_path):
    assert reference("total", "RM 9.00") == "9.00"
    assert reference("address", "") is None
    path = tmp_path / "keys.jsonl"
    keys = {"image": "a.jpg", "company": "A", "date": "6/2/2017", "address": "", "total": "$8.20"}
    path.write_text(json.dumps(keys) + "\n")
    examples = {one.dataset: one for one in read_keys(path)}
    assert {field: one.answers for field, one in examples.items()} == {
        "total": ("8.20",),
        "date": ("2017-02-06",),
        "company": ("a",),
    }
    assert {one.group for one in examples.values()} == {"a.jpg"}
    path.write_text('{"image": "a.jpg"}\n')
    with pytest.raises(DataError, match="line 1"):
        read_keys(path)


def test_a_study_from_receipts_to_the_verdict(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    keys = []
    for number in range(32):
        needs = int(generator.choice([5, 30, 60]))
        image = Image.new("RGB", (24, 48 + number), (number, needs, 0))
        image.save(tmp_path / "images" / f"{number}.png")
        keys.append(
            {
                "image": f"{number}.png",
                "company": "99 SPEED MART" if number % 5 else "Another",
                "date": "04-06-18" if number % 7 else "",
                "address": "LOT PT 2811",
                "total": f"{number}.50",
            }
        )
    path = tmp_path / "keys.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in keys))
    monkeypatch.setattr(study, "ARMS", {"question": ("question",)})
    monkeypatch.setattr(study, "MAIN", "question")
    monkeypatch.setattr(study, "ESTIMATOR", "logistic")
    results = study.studied(
        tmp_path / "out",
        images=tmp_path / "images",
        keys=path,
        model=ocr_reader(Drawn(), sides=(10, 40, 80)),
        seed=0,
        draws=20,
    )
    json.dumps(results)
    reader = results["reader"]
    assert reader["receipts"] == 32
    assert reader["accuracy"]["all"] == sorted(reader["accuracy"]["all"])
    assert set(reader["accuracy"]) == {"all", *QUESTIONS}
    assert results["arms"]["question"]["verdict"]["text"]
    assert "refused" in results["guarantee"]["regret-0.05"]  # six images certify nothing
    assert results["seconds"]["10"] >= 0
    (tmp_path / "receipts.json").write_text(json.dumps(results))
    monkeypatch.setattr("sys.argv", ["page", "--results", str(tmp_path / "receipts.json")])
    page.main()
    shown = (tmp_path / "tables.md").read_text()
    assert results["arms"]["question"]["verdict"]["text"] in shown
    assert "| fixed 80 |" in shown and "| dataset lookup |" in shown
