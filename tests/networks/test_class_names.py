"""The 1000 class names, in order."""

from invjax.networks import class_names


def test_class_names() -> None:
    names = class_names.class_names()
    assert len(names) == 1000
    assert all(name and name == name.strip() for name in names)
    assert len(set(names)) == 998
    known = {0: "tench", 130: "flamingo", 285: "Egyptian cat", 657: "missile"}
    assert {place: names[place] for place in known} == known
    assert names[967] == "espresso"
    assert names[999] == "toilet tissue"
