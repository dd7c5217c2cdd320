import logging

import pytest

ENVIRONMENT = {
    "AWS_SECRET_ACCESS_KEY": "hidden-1",
    "DATABASE_URL": "postgres://me:hidden-2@host/db",
    "WANDB_API_KEY": "hidden-3",
    "SLURM_JWT": "hidden-4",
    "SLURM_JOB_ID": "17",
    "TORCH_HOME_TOKEN": "hidden-5",
    "NCCL_DEBUG_FILE": "ftp://me:hidden-6@host/log",
    "MY_HARMLESS_LOOKING": "hidden-7",
    "CUDA_VISIBLE_DEVICES": "0,1",
    "RANK": "0",
}


def test_nothing_secret_reaches_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vissl.engines import train

    monkeypatch.setattr(logging, "root", logging.getLogger())
    with caplog.at_level(logging.INFO):
        train.print_system_env_info(ENVIRONMENT)

    assert "hidden" not in caplog.text
    for wanted in ("SLURM_JOB_ID:\t17", "CUDA_VISIBLE_DEVICES:\t0,1", "RANK:\t0", "ftp://host/log"):
        assert wanted in caplog.text


def test_all_engines_use_it() -> None:
    from vissl.engines import extract_cluster, extract_features, train

    for engine in (train, extract_features, extract_cluster):
        module = engine.print_system_env_info.__module__
        assert module == "convit_ssl.compat.environment_dump"
