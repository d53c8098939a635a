"""What the words of a text say: pure functions, on sentences written for it."""

import math
import time

import pyarrow as pa
import pytest

from jobs.text import chinese_sentiment
from jobs.text.keywords import KEYWORDS, keywords
from jobs.text.reading import READ, Reading, read, readings
from jobs.text.words import folded, language
from models import vader

# The Chinese lexicon was written beside sentences like these ...
GOOD = [
    "房间干净整洁，服务员态度热情",
    "一点都不贵，味道还特别正宗",
    "价格虽然高，但是质量真的很好",
    "没有异味，穿着很舒服",
    "并不像评论说的那么差，我很满意",
    "再也不用担心没电了，太方便了",
]
BAD = [
    "质量很差，用了两天就坏了",
    "一点也不好吃，还很贵",
    "虽然便宜，但是质量太差",
    "不太满意，颜色和描述不一样",
    "味道不怎么样，不值这个价",
    "假货，千万别买",
]
# ... and not beside these, which name facts rather than feelings.
OTHERS_GOOD = [
    "面包刚出炉，闻着就流口水",
    "带爸妈来泡温泉，他们玩得特别尽兴",
    "老板娘记得我爱吃辣，每次都多加一勺",
    "医生解释得很仔细，让人安心",
    "火锅底料香而不燥，全家抢着吃",
    "行李箱轮子很顺，拉起来不费劲",
    "价格公道，师傅活儿也细",
    "看完电影眼泪停不住，值回票价",
    "用它拍出来的照片同事都问我要链接",
    "展览布置得很用心，讲解也有意思",
    "收纳盒大小刚好，柜子一下子清爽了",
    "挑不出毛病",
]
OTHERS_BAD = [
    "充电宝用了半个月就鼓包了",
    "汤里吃出一根钢丝",
    "客服只会复制粘贴，问什么都不答",
    "衣服上身像麻袋",
    "房间的空调滴了一夜的水",
    "耳机左边没声",
    "水果坏了一半",
    "收银员甩脸色给我看",
    "贴膜全是气泡",
    "蛋糕上的奶油一股塑料味",
    "五十块钱就这么点肉",
    "别被图片骗了",
]
WITHOUT_FEELING = ["我昨天在这里买了一本书", "一共三层楼，地铁站旁边", "今天是第三次开会", "他每周三来上课"]


def test_chinese_feeling_negation_and_but():
    assert [text for text in GOOD if chinese_sentiment.score(text)[0] <= 0] == []
    assert [text for text in BAD if chinese_sentiment.score(text)[0] >= 0] == []
    assert [chinese_sentiment.score(text) for text in WITHOUT_FEELING] == [(0.0, 0)] * 4
    strong, plain = (chinese_sentiment.score(text)[0] for text in ("非常好吃", "好吃"))
    assert strong > plain > 0 > chinese_sentiment.score("不好吃")[0] > chinese_sentiment.score("非常难吃")[0]


def test_the_chinese_lexicon_is_silent_rather_than_wrong_on_sentences_that_it_was_not_written_beside():
    signs = [math.copysign(1, want) * chinese_sentiment.score(text)[0] for want, group in OTHERS for text in group]
    right, wrong = sum(sign > 0 for sign in signs), sum(sign < 0 for sign in signs)
    assert right >= 7 and wrong <= 1, f"{right} right, {wrong} wrong of {len(signs)}"


OTHERS = ((1, OTHERS_GOOD), (-1, OTHERS_BAD))


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("I love this place, the coffee is great", 1),
        ("The soup was not good and the waiter was horrible.", -1),
        ("😍😍", 1),
        ("The shop opens at nine on the second floor", None),
        ("Das Essen war wirklich sehr schlecht und nicht gut", None),
        ("とても美味しい", None),
        ("Замечательный ресторан", None),
        ("", None),
    ],
)
def test_who_is_read_by_which_lexicon(text, sign):
    found = read(text)
    assert (found.sentiment is None) == (found.sentiment_confidence is None)
    if sign is None:
        assert found.sentiment is None
    else:
        assert sign * found.sentiment > 0.3 and 0.6 < found.sentiment_confidence < 1


def test_a_stronger_score_is_surer():
    assert vader.confidence(-0.9) == vader.confidence(0.9) > vader.confidence(0.1) >= 0.5


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Pizzeria Napoli", "en"),
        ("the food is good", "en"),
        ("El restaurante es muy bueno y la comida también", "other"),
        ("iPhone 15 Pro 手机壳质量很好，手感舒适", "zh"),
        ("ＮＩＣＥ　ＣＯＦＦＥＥ", "en"),
        ("こんにちは世界", "other"),
        ("음식이 맛있어요", "other"),
        ("42 😍 !!", None),
    ],
)
def test_language(text, spoken):
    assert language(folded(text)) == spoken


def test_english_keywords_are_what_the_text_names():
    text = "The bristles of this back scrubber are soft.<br />The back scrubber works, but the bristles fell out &amp; broke."
    found = keywords(text)
    assert set(found[:2]) == {"scrubber", "bristles"}
    assert not {"br", "amp", "the", "this", "but"} & {word for phrase in found for word in phrase.split()}
    assert keywords("Blue Cup. Coffee Shop. Coffee by the river")[0] == "coffee"
    assert len(keywords(" ".join(f"alpha{n}, beta{n}." for n in range(50)))) == KEYWORDS


def test_chinese_keywords_are_words_without_stop_words_in_one_form():
    found = keywords("这家店的咖啡非常好喝，咖啡的奶泡很细，下次还来喝咖啡，蛋糕也不错。WiFi 也很快")
    assert found[0] == "咖啡" and {"蛋糕", "奶泡", "wifi"} <= set(found)
    assert not {"这家", "非常", "下次", "的", "好喝", "不错", "很细", "很快"} & set(found)
    assert keywords("ＷｉＦｉ，咖啡") == keywords("wifi，咖啡")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Ресторан рядом с метро, ресторан для всех", "ресторан"),
        ("ラーメンが美味しい。ラーメン最高", "ラーメン"),
        ("यह रेस्टोरेंट बहुत अच्छा है", "रेस्टोरेंट"),
        ("Die Bedienung war sehr freundlich und die Bedienung ist schnell", "bedienung"),
    ],
)
def test_keywords_in_other_scripts(text, found):
    assert keywords(text)[0] == found


def test_keywords_are_null_where_words_do_not_stand_apart():
    assert keywords("ส้มตำอร่อยมาก") is None


BAD_INPUT = {
    "empty": "",
    "blank": " \t\n",
    "a word": "a" * 10**6,
    "words": "good but " * 110_000,
    "Chinese": "好" * 10**6,
    "no letters": "!" * 10**6,
    "emoji": "😍😂" * 500_000,
    "zero bytes": "\x00" * 10**6,
    "controls": "a\x00b\x07c great\x1b[31m",
    "halves": "\ud800 good \udfff 好\ud83d",
    "only halves": "\ud800" * 10**6,
    "grows when folded": "ﷺ" * 10**6,
    "hyphens": "a-" * 500_000,
    "marks": "e" + "\u0301" * 10**6,
    "mixed": "not good 不好 плохо سيئ 悪い 😡 42",
    "markup": "<" * 10**6,
    "entities": "&amp" * 250_000,
}


@pytest.mark.parametrize("text", BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_any_string_has_a_reading_and_soon(text):
    read("good 好")  # what is loaded once
    began = time.monotonic()
    [batch] = pa.Table.from_arrays(readings([text]), names=[field.split()[0] for field in READ.split(", ")]).to_pylist()
    assert time.monotonic() - began < 5
    found = Reading(**batch)
    assert found.language in ("en", "zh", "other", "none")
    assert found.sentiment is None or (-1 <= found.sentiment <= 1 and 0.5 <= found.sentiment_confidence <= 1)
    assert found.keywords is None or all(word and word == word.strip() for word in found.keywords)
    assert read(text) == found


def test_no_texts_have_no_readings():
    assert [len(column) for column in readings([])] == [0, 0, 0, 0, 0]
