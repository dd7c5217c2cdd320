def test_both_names_are_the_same_class() -> None:
    from torchvision.datasets import kinetics

    assert kinetics.Kinetics400 is kinetics.Kinetics


def test_classy_vision_registers_its_dataset() -> None:
    from classy_vision.dataset import DATASET_REGISTRY

    assert "kinetics400" in DATASET_REGISTRY
