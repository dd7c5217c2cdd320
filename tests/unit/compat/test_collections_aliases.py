import collections
import collections.abc


def test_dictionaries_flatten() -> None:
    from classy_vision.generic.util import flatten_dict as classy_flatten_dict
    from vissl.utils.misc import flatten_dict

    assert collections.MutableMapping is collections.abc.MutableMapping  # type: ignore[attr-defined]
    assert flatten_dict({"top_1": {"res5": 1}}) == {"top_1_res5": 1}
    assert classy_flatten_dict({"top_1": {"res5": 1}}) == {"top_1_res5": 1}
