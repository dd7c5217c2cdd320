import subprocess
import sys
from pathlib import Path

import pytest


def test_resources_of_a_package_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pkg_resources

    package = tmp_path / "pack_with_data"
    (package / "config").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "config" / "a.yaml").write_text("a: 1")
    (tmp_path / "space").mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    path = pkg_resources.resource_filename("pack_with_data", "config/a.yaml")
    assert Path(path).read_text() == "a: 1"
    assert pkg_resources.resource_isdir("pack_with_data", "config")
    assert pkg_resources.resource_listdir("pack_with_data", "config") == ["a.yaml"]
    assert not pkg_resources.resource_exists("pack_with_data", "b.yaml")
    assert pkg_resources.resource_filename("space", "x") == str(tmp_path / "space" / "x")
    with pytest.raises(ModuleNotFoundError):
        pkg_resources.resource_filename("no_such_package", "x")


def test_resources_beside_a_module_that_is_imported() -> None:
    import pkg_resources

    here = Path(sys.modules["convit_ssl"].__file__ or "")
    assert pkg_resources.resource_filename("convit_ssl", "py.typed") == str(
        here.with_name("py.typed")
    )


def test_distributions() -> None:
    import pkg_resources

    assert pkg_resources.get_distribution("vissl").version == "0.1.6"
    with pytest.raises(pkg_resources.DistributionNotFound):
        pkg_resources.get_distribution("no-such-distribution")


def test_what_other_packages_ask_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import pkg_resources

    assert pkg_resources.parse_version("1.10") > pkg_resources.parse_version("1.9")
    names = [point.name for point in pkg_resources.iter_entry_points("console_scripts", "pytest")]
    assert names == ["pytest"]
    # pytest itself calls fixup_namespace_packages here
    monkeypatch.syspath_prepend(tmp_path)


def test_an_installed_pkg_resources_comes_first(tmp_path: Path) -> None:
    (tmp_path / "pkg_resources.py").write_text("ORIGIN = 'installed'")
    code = "import convit_ssl.compat as c; c.install(); import pkg_resources as p; print(p.ORIGIN)"

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert result.stdout == "installed\n"


def test_vissl_finds_its_catalogue_and_reports_the_environment() -> None:
    from vissl.utils.collect_env import collect_env_info
    from vissl.utils.misc import get_json_data_catalog_file

    assert get_json_data_catalog_file().endswith("configs/config/dataset_catalog.json")
    assert "vissl" in collect_env_info()
