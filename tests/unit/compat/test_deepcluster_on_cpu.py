from typing import Any

import pytest
import torch
from torch import nn


@pytest.fixture
def one_process(tmp_path: Any) -> Any:
    """A process group of one, as the clustering broadcasts its centroids."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_memory_is_filled_and_clustered() -> None:
    from classy_vision.generic.distributed_util import set_cpu_device
    from vissl.config import AttrDict
    from vissl.losses.deepclusterv2_loss import DeepClusterV2Loss

    set_cpu_device()
    config = {
        "DROP_LAST": True,
        "BATCHSIZE_PER_REPLICA": 4,
        "num_crops": 2,
        "temperature": 0.1,
        "num_clusters": [2],
        "kmeans_iters": 2,
        "memory_params": {"crops_for_mb": [0], "embedding_dim": 3},
        "num_train_samples": 4,
    }
    loss = DeepClusterV2Loss(AttrDict(config))
    images = torch.tensor([[9.0, 0, 0], [8, 1, 0], [0, 0, 9], [0, 1, 8]])
    batch = {"data_idx": [torch.arange(4).repeat(2)], "data": [[images, images]]}
    cuda = torch.Tensor.cuda

    loss.init_memory([batch], lambda crops: [nn.functional.normalize(crops)])
    loss.cluster_memory()

    assignments = loss.assignments[0].tolist()
    assert assignments[0] == assignments[1] != assignments[2] == assignments[3]
    assert torch.Tensor.cuda is cuda
