from pathlib import Path

import pytest
import yaml

from conf.settings import CONF_DIR, Settings, SettingsError, load_settings


def flat(content, path=()):
    for key, value in content.items():
        if isinstance(value, dict) and value and path != ("sources",):
            yield from flat(value, (*path, key))
        else:
            yield (".".join((*path, key)), value)


def test_local_yaml_lists_every_key_with_its_default_and_a_comment():
    local = yaml.safe_load((CONF_DIR / "local.yaml").read_text())
    defaults = Settings(sources=local["sources"]).model_dump(mode="json")
    assert dict(flat(local)) | {"sources.events": None} == dict(flat(defaults | {"sources": local["sources"]})) | {
        "sources.events": None
    }
    for line in (CONF_DIR / "local.yaml").read_text().splitlines():
        _, colon, rest = line.partition(":")
        is_section = rest.strip() == ""
        assert line.startswith("#") or not colon or is_section or "#" in line, f"no comment: {line}"


@pytest.mark.parametrize("name", ["local", "foursquare", "movielens", "amazon", "demo", "cluster"])
def test_shipped_settings_load(name):
    settings = load_settings(f"conf/{name}.yaml")
    assert settings.mapping.target_events


def test_overrides_are_typed_and_win(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("train: {epochs: 7, seed: 5}\n")
    settings = load_settings(str(config), ["train.epochs=9", "lake=s3://bucket/lake", "sinks.files={kind: csv, path: out}"])
    assert (settings.train.epochs, settings.train.seed) == (9, 5)
    assert settings.lake == "s3://bucket/lake" and settings.sinks["files"].kind == "csv"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epoch=9", "train.epoch: unknown key"),
        ("train.epochs=many", "train.epochs: .*integer"),
        ("train.epochs=0", "train.epochs: .*greater than or equal to 1"),
        ("train.only_on=sunday", "train: .*never learnt from scratch on monday: set train.from_scratch_on to sunday"),
        ("train.worth={bought: 2}", "train.worth.bought: no target event; these are check_in, purchase, click"),
        ("train.worth={click: 0}", "train.worth.click: .*greater than 0"),
        ("score.boost={x: 1.0e+39}", "score.boost.x: .*less than or equal"),
        ("score.nearest=79", "score: .*at least 80 items: raise score.nearest"),
        ("lake", "write key.path=value"),
        ("sources.events.mapping=conf/sources/none.yaml", "no file conf/sources/none.yaml"),
    ],
)
def test_mistakes_name_the_key(override, said):
    with pytest.raises(SettingsError, match=said):
        load_settings(overrides=[override])


@pytest.mark.parametrize("content", ["- a\n", "a: [\n", "\x00"])
def test_an_unreadable_file_is_one_line(tmp_path: Path, content):
    config = tmp_path / "bad.yaml"
    config.write_text(content)
    with pytest.raises(SettingsError, match=r"bad.yaml") as caught:
        load_settings(str(config))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("scale", "more", "said"),
    [
        ("[5, 1]", ", value: v", "rating_scale: the worst value comes first"),
        ("[1, 1]", ", value: v", "rating_scale: the worst value comes first"),
        ("[1, 5]", "", "rating_scale: columns.value must be mapped"),
        ("[1, .inf]", ", value: v", "finite number"),
        ("[1]", ", value: v", "rating_scale"),
    ],
)
def test_a_rating_scale_that_cannot_be_is_refused(tmp_path, scale, more, said):
    mapping = tmp_path / "m.yaml"
    columns = f"columns: {{user_id: u, item_id: i, event_time: t{more}}}"
    mapping.write_text(
        f"description: d\ntarget_events: [review]\nevents: {{event_type: review, rating_scale: {scale}, {columns}}}"
    )
    with pytest.raises(SettingsError, match=said):
        load_settings(overrides=[f"sources.events.mapping={mapping}"])


def test_a_mapping_with_two_ways_to_a_type_is_refused(tmp_path):
    mapping = tmp_path / "m.yaml"
    mapping.write_text(
        "description: x\ntarget_events: [view]\nevents: {event_type: view, wide: {click: c},"
        " columns: {user_id: u, item_id: i, event_time: t}}\n"
    )
    with pytest.raises(SettingsError, match="exactly one of event_type"):
        load_settings(overrides=[f"sources.events.mapping={mapping}"])


def test_the_hash_ignores_where_things_lie_but_not_what_they_do():
    plain = load_settings().hash()
    assert load_settings(overrides=["lake=/elsewhere", "spark.driver_memory=4g", "report.path=x.html"]).hash() == plain
    assert load_settings(overrides=["label.short_half_life_days=8"]).hash() != plain
