"""Vectors of characters: Chinese likeness on sentences of our own, against the encoder and a fitted model of characters."""

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import normalize

from models import encoder, ngrams

PARAPHRASES = [
    ("这家咖啡店的拿铁很香", "店里的拿铁咖啡味道香浓", "想找一家安静的咖啡馆喝拿铁"),
    ("附近有什么好吃的火锅", "朋友推荐了一家四川火锅店", "今晚去吃麻辣火锅"),
    ("这双跑步鞋很轻很舒服", "跑鞋鞋底柔软，适合长跑", "想买一双轻便的跑步鞋"),
    ("手机电池用不到一天", "这款手机的电池续航太差", "手机充电一次只能用半天"),
    ("博物馆周一不开门", "市博物馆每周一闭馆", "周末带孩子参观博物馆"),
    ("酒店房间干净，服务员热情", "酒店的服务很好，房间整洁", "住过最干净的酒店房间"),
    ("儿童绘本故事很有趣", "给孩子买的绘本图画漂亮", "睡前给女儿读绘本故事"),
    ("从机场坐地铁到市中心要一小时", "机场地铁到市中心很方便", "去机场的地铁末班车几点"),
    ("健身房的瑜伽课早上七点开始", "报了一个瑜伽班，每周两次课", "瑜伽老师教得很耐心"),
    ("耳机降噪效果明显", "这款蓝牙耳机降噪很好", "地铁上戴降噪耳机听音乐"),
    ("花店送来的玫瑰很新鲜", "订了一束玫瑰花送给妈妈", "鲜花店的百合和玫瑰"),
    ("公园里有人放风筝", "春天去公园放风筝野餐", "湖边公园适合散步"),
]
SENTENCES = [sentence for alike in PARAPHRASES for sentence in alike]
SUBJECT = np.repeat(np.arange(len(PARAPHRASES)), [len(alike) for alike in PARAPHRASES])


def likeness(vectors_ND):
    """Area under the curve of "these two are paraphrases", by their cosine."""
    one, other = np.triu_indices(len(SENTENCES), 1)
    cosines = (normalize(vectors_ND) @ normalize(vectors_ND).T)[one, other]
    return roc_auc_score(SUBJECT[one] == SUBJECT[other], cosines)


def test_paraphrases_are_told_from_others_better_than_by_the_encoder_and_as_well_as_by_a_fitted_model():
    hashed = ngrams.vectors(SENTENCES, 384)
    tfidf = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True).fit_transform(SENTENCES)
    fitted = TruncatedSVD(30, random_state=0).fit_transform(tfidf)
    model = encoder.load(threads=1)
    model_ND = np.concatenate([model._encode_batch([ids]) for ids in model._tokenizer(SENTENCES)["input_ids"]])
    assert hashed.shape == (36, 384) and np.allclose(np.linalg.norm(hashed, axis=1), 1, atol=1e-6)
    assert likeness(hashed) > 0.98
    assert likeness(model_ND) < 0.9
    assert likeness(hashed) > likeness(fitted) - 0.01


def test_the_encoder_leaves_to_them_what_it_does_not_know():
    texts = [
        "coffee 😀😀😀",
        "a coffee at 星巴克",
        "咖啡店",
        "coffee shop named 这家咖啡店的拿铁很香",
        "\ud800",
        "\ud800 coffee",
        "\x00\x07",
    ]
    known = ~np.isnan(encoder.load(threads=1).encode(texts)[:, 0])
    assert known.tolist() == [True, False, False, False, False, True, False]


@pytest.mark.parametrize("text", ["", " \n", "😀", "。，！", "\x00", "的了是"])
def test_what_has_no_letters_or_only_those_of_grammar_has_no_vector(text):
    assert np.isnan(ngrams.vectors([text], 16)).all()


def test_width_case_and_order_of_texts_do_not_matter_and_long_ones_are_read_whole():
    assert ngrams.vectors([], 16).shape == (0, 16)
    wide, narrow, long = ngrams.vectors(["ＡＢＣ咖啡", "abc咖啡", "咖啡" * 500_000], 384)
    assert (wide == narrow).all() and np.isfinite(long).all()
