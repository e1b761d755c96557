"""Robot cards and fleet files, friendly and hostile."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitmar_core.errors import FleetError, MissingError
from bitmar_core.robots import MAX_NAME, MAX_PHRASE, MAX_PHRASES, NO_ROBOT, Fleet, RobotCard, load_fleet, parse_fleet


def fleet_of(count: int) -> dict:
    return {"name": "many", "robots": [{"name": f"Robot {i}"} for i in range(count)]}


def test_the_default_fleet():
    fleet = load_fleet()
    assert fleet.names == ("Drone", "Underwater Robot", "Humanoid", "Robot with Wheels", "Robot with Legs", NO_ROBOT)
    drone = fleet.robots[0]
    assert drone.text() == (
        "Drone. Can: fastest, aerial navigation, surveillance, lightweight transport, aerial inspection. "
        "Limits: limited payload, loud, weather dependent, battery life. Places: outdoor, large indoor spaces, hard to reach areas."
    )
    assert fleet.robots[5].environments == () and "Places" not in fleet.robots[5].text()


@pytest.mark.parametrize("count", [2, 3, 64])
def test_two_to_sixty_four(count: int):
    assert len(parse_fleet(fleet_of(count), where="f").robots) == count


@pytest.mark.parametrize("count", [0, 1, 65, 1000])
def test_too_few_and_too_many(count: int):
    with pytest.raises(FleetError, match=f"f: {count} robots are listed; between 2 and 64"):
        parse_fleet(fleet_of(count), where="f")
    with pytest.raises(FleetError, match="between 2 and 64"):
        Fleet(name="x", robots=tuple(RobotCard(name=str(i)) for i in range(count)))


@pytest.mark.parametrize(("one", "two"), [("Arm", "Arm"), ("Arm", "ARM"), ("Straße", "STRASSE"), ("Arm", "  Arm "), ("Big Arm", "Big\n  Arm")])
def test_duplicate_names(one: str, two: str):
    with pytest.raises(FleetError, match="twice; give each its own name"):
        parse_fleet({"robots": [{"name": one}, {"name": two}]}, where="f")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"robot": []}, "unknown key 'robot'; did you mean `robots`?"),
        ({"robots": [{"name": "A", "capabilites": []}, {"name": "B"}]}, "f, robot 1: unknown key 'capabilites'; did you mean `capabilities`?"),
        ({"robots": [{"name": "A"}, {"name": "B", "zzz": 1}]}, "f, robot 2: unknown key 'zzz'; known: capabilities"),
        ([], "a fleet is a mapping"), (None, "a fleet is a mapping"), ({"robots": 3}, "must be a list"), ({}, "must be a list"),
        ({"robots": ["A", "B"]}, "f, robot 1: must be a mapping"),
        ({"robots": [{}, {}]}, "name must be text, not NoneType"),
        ({"robots": [{"name": True}, {}]}, "name must be text, not bool; put it in quotes"),
        ({"robots": [{"name": " "}, {}]}, "the name is empty"),
        ({"robots": [{"name": "x" * (MAX_NAME + 1)}, {}]}, f"name is {MAX_NAME + 1} characters long; {MAX_NAME} is the limit"),
        ({"robots": [{"name": "A", "limitations": 3}, {}]}, "(A): `limitations` must be a list"),
        ({"robots": [{"name": "A", "limitations": {"a": 1}}, {}]}, "`limitations` must be a list"),
        ({"robots": [{"name": "A", "limitations": ["a"] * (MAX_PHRASES + 1)}, {}]}, f"at most {MAX_PHRASES} phrases"),
        ({"robots": [{"name": "A", "limitations": [1]}, {}]}, "limitations must be text, not int"),
        ({"robots": [{"name": "A", "limitations": ["y" * (MAX_PHRASE + 1)]}, {}]}, f"{MAX_PHRASE} is the limit"),
        ({"name": 3, "robots": [{"name": "A"}, {"name": "B"}]}, "name must be text, not int"),
    ],
)  # fmt: skip
def test_refused_fleets_name_place_and_mend(data: object, words: str):
    with pytest.raises(FleetError) as caught:
        parse_fleet(data, where="f")
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", ["\x1b[31m", "\x00", "\x07", "\x7f", "\x9b", "\u202e", "\u2066", "\ud800", "\r"])
@pytest.mark.parametrize("place", ["name", "capabilities", "fleet"])
def test_control_characters_are_refused(bad: str, place: str):
    data = fleet_of(2)
    if place == "fleet":
        data["name"] = f"a{bad}b"
    else:
        data["robots"][0][place] = f"a{bad}b" if place == "name" else [f"a{bad}b"]
    with pytest.raises(FleetError, match="control characters") as caught:
        parse_fleet(data, where="f")
    assert str(caught.value).isprintable()


@given(st.text(max_size=100))
def test_any_name_is_taken_clean_or_refused(name: str):
    try:
        fleet = parse_fleet({"robots": [{"name": name}, {"name": "the other one"}]}, where="f")
    except FleetError as error:
        assert "\n" not in str(error)
        return
    taken = fleet.names[0]
    assert taken and taken == " ".join(name.split()) and len(taken) <= MAX_NAME and fleet.find(name) == 0


def test_lists_may_be_left_out_empty_or_one_line():
    fleet = parse_fleet(
        {"robots": [{"name": "A", "capabilities": "lift,  carry ,", "limitations": None}, {"name": "B", "environments": []}]}, where="dir/my.yaml"
    )
    assert fleet.robots[0].capabilities == ("lift", "carry") and fleet.robots[0].limitations == () and fleet.robots[1].text() == "B."
    assert fleet.name == "my", "a fleet without a name gets its file's"


def test_find_ignores_case_and_offers_the_nearest():
    fleet = load_fleet()
    assert fleet.find("drone") == 0 and fleet.find("  ROBOT  with legs ") == 4
    with pytest.raises(FleetError, match="no robot 'Droone' in this fleet; did you mean 'Drone'?"):
        fleet.find("Droone")
    with pytest.raises(FleetError, match=r"it has: Drone, Underwater Robot"):
        fleet.find("xyzzy")


def test_files(tmp_path: Path):
    path = tmp_path / "f.yaml"
    path.write_text("name: mine\nrobots:\n  - name: A\n  - name: B\n    capabilities: [swim]\n")
    assert load_fleet(path).names == ("A", "B")
    path.write_text("robots: [{name: A, name: B}, {name: C}]")
    with pytest.raises(FleetError, match="key 'name' is given twice"):
        load_fleet(path)
    with pytest.raises(MissingError):
        load_fleet(tmp_path / "none.yaml")


def test_a_fleet_can_be_a_key():
    assert len({load_fleet(), load_fleet()}) == 1
