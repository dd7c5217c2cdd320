import copy

from torch import nn


def test_a_copy_of_a_wrapped_model_holds_one() -> None:
    from classy_vision.models.classy_model import ClassyModelWrapper

    wrapper = ClassyModelWrapper(nn.Linear(2, 3))
    # What Python 3.10 asks for its copies, and finds in no class of its own.
    assert list(wrapper.__getstate__()) == ["classy_model"]
    copied = copy.deepcopy(wrapper)
    assert copied.classy_model.weight.equal(wrapper.weight)
    assert copied.classy_model is not wrapper.classy_model
