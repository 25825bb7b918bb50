"""Finding the configuration, laying drop-ins over it, and what each fault is called."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kata_py.config import load as load_module
from kata_py.config.check import contradiction
from kata_py.config.errors import ConfigurationError, NoConfiguration
from kata_py.config.load import load, problems
from kata_py.config.model import Configuration, HypervisorConfig, RuntimeConfig
from kata_py.config.upstream import ANY, PENDING

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the main file, or a drop-in by name, and returns its path."""

    def write(text: str, *, drop_in: str = "") -> Path:
        path = tmp_path / "config.d" / drop_in if drop_in else tmp_path / "configuration.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def refused(path: Path) -> str:
    """What is said about a file, with the directory left out."""
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    return str(caught.value).replace(f"{path.parent}/", "")


# ---- values


def test_an_empty_file_is_the_defaults(write: Write) -> None:
    path = write("")
    assert load(path) == Configuration(HypervisorConfig("qemu"), path)


def test_keys_become_values(write: Write) -> None:
    configuration = load(
        write(
            """
            [hypervisor.qemu]
            path = "/opt/qemu"
            initramfs = ""
            accelerator = "tcg"
            default_vcpus = 2
            default_memory = 512
            virtio_fs_extra_args = ["-o", "xattr"]
            [agent.kata]
            dial_timeout = 90
            [runtime]
            enable_debug = true
            """
        )
    )
    hypervisor = configuration.hypervisor
    assert (hypervisor.path, hypervisor.initramfs, hypervisor.accelerator) == (Path("/opt/qemu"), None, "tcg")
    assert (hypervisor.default_vcpus, hypervisor.default_memory) == (2.0, 512)
    assert hypervisor.virtio_fs_extra_args == ("-o", "xattr")
    assert (configuration.agent.dial_timeout, configuration.runtime.enable_debug) == (90, True)


def test_the_table_s_name_is_the_driver_s(write: Write) -> None:
    assert load(write("[hypervisor.namespace]\n")).hypervisor == HypervisorConfig("namespace")
    assert load(write("[hypervisor.namespace]\ndefault_memory = 96\n")).hypervisor.default_memory == 96


def test_dotted_and_inline_forms_say_the_same(write: Write) -> None:
    assert load(write("hypervisor.qemu.default_memory = 100")).hypervisor.default_memory == 100
    assert load(write("hypervisor = {qemu = {default_memory = 100}}")).hypervisor.default_memory == 100


# ---- drop-ins


def test_drop_ins_are_laid_over_in_order_key_by_key(write: Write) -> None:
    path = write('[hypervisor.qemu]\nkernel_params = "a b"\ndefault_memory = 100\nvirtio_fs_extra_args = ["x", "y"]\n')
    write("[hypervisor.qemu]\ndefault_memory = 300\n[runtime]\nenable_debug = true\n", drop_in="50-two.toml")
    write('[hypervisor.qemu]\ndefault_memory = 200\nvirtio_fs_extra_args = ["z"]\n', drop_in="10-one.toml")
    configuration = load(path)
    assert configuration.hypervisor.default_memory == 300
    assert configuration.hypervisor.virtio_fs_extra_args == ("z",)
    assert configuration.hypervisor.kernel_params == "a b"
    assert configuration.runtime.enable_debug
    assert configuration.source == path


def test_hidden_files_are_no_drop_ins(write: Write) -> None:
    path = write("")
    write("no toml at all", drop_in=".50-two.toml.swp")
    assert load(path).hypervisor == HypervisorConfig("qemu")


def test_drop_ins_lie_beside_the_file_a_link_leads_to(write: Write, tmp_path: Path) -> None:
    write("")
    write("[agent.kata]\ndial_timeout = 7\n", drop_in="1.toml")
    link = tmp_path / "elsewhere" / "configuration.toml"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "configuration.toml")
    assert load(link).agent.dial_timeout == 7


def test_a_fault_in_a_drop_in_is_found_there(write: Write) -> None:
    path = write("[hypervisor.qemu]\ndefault_memory = 100\n")
    write("\n[hypervisor.qemu]\ndefault_memory = 'much'\n", drop_in="1.toml")
    assert refused(path).startswith("config.d/1.toml:3: default_memory in [hypervisor.qemu] must be a whole number")


# ---- faults


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[hypervisor.qemu]\n\ndefault_memroy = 512",
            "3: unknown key default_memroy in [hypervisor.qemu]; the nearest valid key is default_memory",
        ),
        ("[runtime]\ndebug = true", "2: unknown key debug in [runtime]; the nearest valid key is enable_debug"),
        (
            "[runtime]\nfrobnicate = true",
            "2: unknown key frobnicate in [runtime]; the nearest valid key is",
        ),
        ('[factory]\n"enable template" = true', "unknown key enable template in [factory]; the nearest valid key is"),
        (
            "[hypervisor.qemu]\nkernel.path = '/x'",
            "2: unknown key kernel.path in [hypervisor.qemu]; the nearest valid key is kernel",
        ),
        (
            "[hypervisor]\npath = '/usr/bin/qemu'",
            "2: hypervisor.path must be a table; write [hypervisor.path]",
        ),
        ("[agent.kate]\nx = 1", "1: unknown table [agent.kate]; the nearest valid table is [agent.kata]"),
        ("[proxy.kata]\n", "1: unknown table [proxy.kata]; the nearest valid table is [agent.kata]"),
        ("runtime = 1", "1: runtime must be a table; write [runtime]"),
        ("enable_debug = true", "1: unknown table [enable_debug]; the nearest valid table is"),
    ],
)
def test_what_is_unknown_is_named_with_its_line_and_the_nearest(write: Write, text: str, said: str) -> None:
    assert said in refused(write(text))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            'default_memory = "2G"',
            'default_memory in [hypervisor.qemu] must be a whole number of at least 96, not "2G"',
        ),
        ("default_memory = 95", "must be a whole number of at least 96, not 95"),
        ("default_memory = 2048.0", "must be a whole number"),
        ("default_memory = true", "must be a whole number"),
        ("memory_slots = 256", "must be a whole number from 0 to 255, not 256"),
        ('default_vcpus = "all"', 'default_vcpus in [hypervisor.qemu] must be a number of at least -1, not "all"'),
        ("default_vcpus = nan", "must be a number of at least -1, not NaN"),
        ("enable_debug = 1", "enable_debug in [hypervisor.qemu] must be true or false, not 1"),
        ('kernel = ""', 'kernel in [hypervisor.qemu] must be an absolute path, not ""'),
        ('initramfs = "a/b"', 'initramfs in [hypervisor.qemu] must be an absolute path or "", not "a/b"'),
        ("kernel_params = []", "kernel_params in [hypervisor.qemu] must be a string, not []"),
        (
            'virtio_fs_extra_args = "-d"',
            'virtio_fs_extra_args in [hypervisor.qemu] must be a list of strings, not "-d"',
        ),
        ("virtio_fs_extra_args = [1]", "must be a list of strings, not [1]"),
        ('accelerator = "hvf"', 'accelerator in [hypervisor.qemu] must be one of "auto", "kvm", "tcg", not "hvf"'),
        ("accelerator = 2026-01-01", 'must be one of "auto", "kvm", "tcg", not "2026-01-01"'),
        ('kernel_params = ["' + "x" * 99 + '"]', 'must be a string, not ["' + "x" * 55 + "..."),
    ],
)
def test_a_wrong_type_is_named_with_its_line(write: Write, entry: str, said: str) -> None:
    error = refused(write(f"[hypervisor.qemu]\n{entry}\n"))
    assert error.startswith("configuration.toml:2: ")
    assert said in error


def test_a_key_in_an_inline_table_is_found_by_the_table_s_line(write: Write) -> None:
    assert refused(write("\nruntime = {debug = 1}")).startswith("configuration.toml:2: unknown key debug in [runtime]")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[hypervisor.qemu]\nenable_guest_swap = true",
            "2: enable_guest_swap = true in [hypervisor.qemu] is not honoured yet; accepted so far: false",
        ),
        (
            "[hypervisor.qemu]\nvirtio_fs_cache_size = 64",
            "2: virtio_fs_cache_size = 64 in [hypervisor.qemu] is not honoured yet; accepted so far: 0",
        ),
        (
            '[hypervisor.qemu]\n[[hypervisor.qemu.guest_extension_images]]\nname = "x"',
            '2: guest_extension_images = [{"name": "x"}] in [hypervisor.qemu] is not honoured yet; accepted so far: []',
        ),
        ("[factory]\nvm_cache_number = 3", "vm_cache_number = 3 in [factory] is not honoured yet; accepted so far: 0"),
        ("[hypervisor.qemu]\nuse_legacy_serial = 0", "use_legacy_serial = 0 in [hypervisor.qemu] is not honoured yet"),
    ],
)
def test_a_wish_of_upstream_s_that_is_not_honoured_yet_is_refused(write: Write, text: str, said: str) -> None:
    assert said in refused(write(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[hypervisor.qemu]\n[hypervisor.remote]\n",
            "more than one hypervisor: [hypervisor.qemu] and [hypervisor.remote]",
        ),
        (
            '[hypervisor.qemu]\ninitramfs = ""\nimage = ""',
            "neither initramfs, image nor initrd: the guest has no root file system",
        ),
        ("[hypervisor.qemu]\ndefault_maxmemory = 100", "default_maxmemory 100 is below default_memory 2048"),
        (
            "[hypervisor.qemu]\ndefault_maxvcpus = 1\ndefault_vcpus = 1.5",
            "default_maxvcpus 1 is below default_vcpus 1.5",
        ),
        (
            '[hypervisor.qemu]\nextra_monitor_socket = "hmp"',
            "extra_monitor_socket is for debugging alone, and enable_debug is false",
        ),
        (
            '[hypervisor.qemu]\nimage = "/a"\ninitrd = "/b"',
            "3: both image and initrd in [hypervisor.qemu]: the guest has one root file system; leave one of them in",
        ),
        (
            "[hypervisor.qemu]\nblock_device_logical_sector_size = 4096\nblock_device_physical_sector_size = 512",
            "block_device_logical_sector_size 4096 is above block_device_physical_sector_size 512",
        ),
        (
            "[hypervisor.qemu]\nblock_device_cache_noflush = true",
            "block_device_cache_noflush counts only with block_device_cache_set, which is false",
        ),
    ],
)
def test_a_contradiction_is_refused(write: Write, text: str, said: str) -> None:
    assert said in refused(write(text))


def test_an_initrd_stands_in_the_place_of_the_image_that_is_there_by_default(write: Write) -> None:
    hypervisor = load(write('[hypervisor.qemu]\ninitrd = "/i"\nimage = ""\ninitramfs = ""')).hypervisor
    assert (hypervisor.initrd, hypervisor.image, hypervisor.initramfs) == (Path("/i"), None, None)
    assert load(write('[hypervisor.qemu]\ninitrd = "/i"')).hypervisor.initrd == Path("/i")


@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        (
            Configuration(HypervisorConfig("qemu", hot_plug_vfio="root-port", cold_plug_vfio="root-port"), Path("/c")),
            "hot_plug_vfio and cold_plug_vfio exclude each other, in [hypervisor.qemu]",
        ),
        (
            Configuration(HypervisorConfig("qemu", rootless=True, hot_plug_vfio="root-port"), Path("/c")),
            "hot_plug_vfio needs rootless to be false: a user of QEMU's own may not open devices of the host, in"
            " [hypervisor.qemu]",
        ),
        (
            Configuration(HypervisorConfig("qemu"), Path("/c"), runtime=RuntimeConfig(vfio_mode="vfio")),
            "vfio_mode vfio needs enable_iommu in [hypervisor.qemu]",
        ),
        (
            Configuration(HypervisorConfig("qemu"), Path("/c"), runtime=RuntimeConfig(disable_new_netns=True)),
            'disable_new_netns needs internetworking_model "none", not "tcfilter", in [runtime]',
        ),
        (
            Configuration(HypervisorConfig("qemu", enable_iothreads=True), Path("/c")),
            "enable_iothreads counts only with block_device_driver virtio-scsi; indep_iothreads is for the others,"
            " in [hypervisor.qemu]",
        ),
        (
            Configuration(HypervisorConfig("qemu", indep_iothreads=1, block_device_driver="virtio-scsi"), Path("/c")),
            "indep_iothreads does not count with block_device_driver virtio-scsi; enable_iothreads does,"
            " in [hypervisor.qemu]",
        ),
        (
            Configuration(HypervisorConfig("qemu"), Path("/c"), runtime=RuntimeConfig(emptydir_mode="block-encrypted")),
            'emptydir_mode "block-encrypted" is not supported: it needs a confidential guest; "block-plain" does not,'
            " in [runtime]",
        ),
        (
            Configuration(
                HypervisorConfig("qemu"),
                Path("/c"),
                runtime=RuntimeConfig(emptydir_mode="block-plain", disable_guest_empty_dir=False),
            ),
            'disable_guest_empty_dir = false does not count with emptydir_mode "block-plain", in [runtime]',
        ),
        (Configuration(HypervisorConfig("qemu"), Path("/c")), ""),
    ],
)
def test_a_contradiction_of_keys_that_are_not_honoured_yet_is_known(configuration: Configuration, said: str) -> None:
    assert contradiction(configuration) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[hypervisor.qemu]\nenable_annotations = ['a', 'b(']",
            'must be a list of strings that are regular expressions, not ["a", "b("]',
        ),
        ("[hypervisor.qemu]\nvalid_entropy_sources = ['dev/x']", "must be a list of strings that are absolute paths"),
        ("[hypervisor.qemu]\nblock_device_logical_sector_size = 513", "0 or a power of two from 512 to 65536, not 513"),
        ("[hypervisor.qemu]\nblock_device_physical_sector_size = 131072", "0 or a power of two from 512 to 65536"),
        (
            '[hypervisor.qemu]\nseccompsandbox = "on,spawn=perhaps"',
            "must be a string as QEMU's -sandbox takes it, such as \"on,obsolete=deny",
        ),
        ('[agent.kata]\nkernel_modules = ["-r"]', "must be a list of strings of a module's name and parameters"),
        ('[agent.kata]\nkernel_modules = ["a;b"]', "must be a list of strings of a module's name and parameters"),
    ],
)
def test_a_form_that_a_value_has_not_is_told_in_words(write: Write, text: str, said: str) -> None:
    assert said in refused(write(text))


@pytest.mark.parametrize(
    "sandbox", ["", "off", "on,obsolete=deny,elevateprivileges=children,spawn=deny,resourcecontrol=allow"]
)
def test_what_qemu_s_sandbox_takes_is_taken(write: Write, sandbox: str) -> None:
    assert load(write(f'[hypervisor.qemu]\nseccompsandbox = "{sandbox}"')).hypervisor.seccompsandbox == sandbox


# ---- keys of the model that no code reads yet


def test_a_pending_key_is_accepted_with_its_default_and_refused_otherwise(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PENDING, "runtime", {"dan_conf": (), "emptydir_mode": ("block-plain",), "enable_debug": ANY})
    for accepted in (
        'dan_conf = "/run/kata-containers/dans"', 'emptydir_mode = "block-plain"', 'emptydir_mode = "shared-fs"',
    ):  # fmt: skip
        load(write(f"[runtime]\n{accepted}\nenable_debug = true\n"))
    assert refused(write('[runtime]\ndan_conf = "/x"\n')) == (
        'configuration.toml:2: dan_conf = "/x" in [runtime] is not honoured yet; '
        'accepted so far: "/run/kata-containers/dans"'
    )


def test_a_key_is_honoured_as_soon_as_it_is_no_longer_pending(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[runtime]\ndan_conf = '/x'\n"
    monkeypatch.setitem(PENDING, "runtime", {"dan_conf": ()})
    assert "not honoured yet" in refused(write(text))
    monkeypatch.setitem(PENDING, "runtime", {})
    assert load(write(text)).runtime.dan_conf == Path("/x")


# ---- the text among the options of the runtime class


def test_a_text_in_the_runtime_class_s_options_is_a_configuration_without_drop_ins(places: list[Path]) -> None:
    places[0].write_text("[agent.kata]\ndial_timeout = 1\n")
    (places[0].parent / "config.d").mkdir()
    (places[0].parent / "config.d" / "1.toml").write_text("[agent.kata]\ndial_timeout = 2\n")
    configuration = load(b"[runtime]\nenable_debug = true\n", {"KATA_CONF_FILE": str(places[0])})
    assert configuration == Configuration(
        HypervisorConfig("qemu"), Path("options in the runtime class"), runtime=RuntimeConfig(enable_debug=True)
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\n[runtime]\ndebug = 1\n", "options in the runtime class:3: unknown key debug in [runtime]"),
        (b"a b", "options in the runtime class: not TOML: "),
        (b"\xff", "options in the runtime class: not TOML: "),
        (b"SystemdCgroup = true\n", "options in the runtime class:1: unknown table [SystemdCgroup]"),
        (
            b"[hypervisor.qemu]\ninitramfs = ''\nimage = ''\n",
            "options in the runtime class:3: neither initramfs, image nor initrd",
        ),
    ],
)
def test_a_fault_in_the_runtime_class_s_options_is_found_there(text: bytes, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(text)
    assert str(caught.value).startswith(said)


def test_garbled_text_is_located(write: Write) -> None:
    assert refused(write("[hypervisor.qemu]\npath = /usr/bin/qemu\n")) == (
        "configuration.toml: not TOML: Invalid value (at line 2, column 8)"
    )
    path = write(f"[hypervisor.qemu]\ndefault_memory = {'1' * 5000}\n")
    assert refused(path).startswith("configuration.toml: not TOML: Exceeds the limit")
    path.write_bytes(b"\xff")
    assert refused(path).startswith("configuration.toml: not TOML: 'utf-8' codec can't decode byte 0xff")


@pytest.mark.parametrize("text", ["[{}]\nx = 1", "{} = 1", "runtime = {{ {} = 1 }}"])
def test_a_key_of_thousands_of_names_is_refused(write: Write, text: str) -> None:
    said = refused(write(text.format(".".join(["a"] * 3000))))
    assert said.startswith("configuration.toml: a key has more than 32 names, from ")


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere.toml") == "nowhere.toml: cannot be read: No such file or directory"
    (tmp_path / "configuration.toml").mkdir()
    assert refused(tmp_path / "configuration.toml") == "configuration.toml: cannot be read: Is a directory"
    (tmp_path / "config.d").write_text("")
    (tmp_path / "main.toml").write_text("")
    assert refused(tmp_path / "main.toml") == "config.d: cannot be read: Not a directory"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    text=st.text()
    | st.tuples(
        st.sampled_from(["hypervisor.qemu", "agent.kata", "runtime", "factory", "x"]),
        st.sampled_from(["path", "image", "default_vcpus", "enable_debug", "accelerator", "dial_timeout", "pflashes"]),
        st.sampled_from(["0", "-1", "1e400", "nan", "true", "''", "'/x'", "[]", "{}", "[{}]", "2026-01-01", "'auto'"]),
    ).map(lambda parts: "[{}]\n{} = {}\n".format(*parts))
)
def test_whatever_the_text_the_outcome_is_a_configuration_or_an_error(write: Write, text: str) -> None:
    path = write("")
    path.write_bytes(text.encode())
    try:
        assert load(path).source == path
    except ConfigurationError:
        return


# ---- where the file is looked for


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The places that are searched, moved to where the test may write."""
    places = [tmp_path / name / "configuration.toml" for name in ("etc", "usr", "opt")]
    for place in places:
        place.parent.mkdir()
    monkeypatch.setattr(load_module, "SEARCHED", tuple(places))
    return places


def test_the_first_place_that_has_a_file_counts(places: list[Path]) -> None:
    for place in reversed(places):
        place.write_text("")
        assert load(environ={}).source == place


def test_no_file_anywhere_names_the_places(places: list[Path]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(environ={})
    assert all(str(place) in str(caught.value) for place in places)


def test_the_runtime_class_s_file_goes_before_the_environment_s_and_that_before_the_searched(
    places: list[Path],
) -> None:
    for place in places:
        place.write_text("")
    environ = {"KATA_CONF_FILE": str(places[1])}
    assert load(environ=environ).source == places[1]
    assert load(places[2], environ).source == places[2]


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_of_the_environment_s_that_others_can_write_is_not_believed(places: list[Path], mode: int) -> None:
    places[0].write_text("")
    places[0].chmod(mode)
    with pytest.raises(ConfigurationError, match=r"named by KATA_CONF_FILE, but others can write it; chown root"):
        load(environ={"KATA_CONF_FILE": str(places[0])})


def test_a_missing_file_of_the_environment_s_is_an_error(places: list[Path]) -> None:
    places[0].write_text("")
    with pytest.raises(ConfigurationError, match="named by KATA_CONF_FILE, but: No such file or directory"):
        load(environ={"KATA_CONF_FILE": "/nowhere/configuration.toml"})


def test_loading_imports_nothing_heavy() -> None:
    """The shim reads the configuration while a pod waits."""
    program = f"""
import sys
from pathlib import Path
from kata_py.config.load import load, problems
load(Path({str(Path(__file__).parents[3] / "configs" / "configuration-qemu.toml")!r}))
print(*sorted({{"asyncio", "difflib", "google.protobuf", "logging", "socket"}} & sys.modules.keys()))
"""
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert found.stdout.split() == []


# ---- all that is wrong


def test_all_that_is_wrong_is_told_at_once_with_file_line_and_key(write: Write) -> None:
    path = write(
        "[hypervisor.qemu]\ndefault_memory = 1\nkernal = '/k'\ndefault_vcpus = 8\ndefault_maxvcpus = 4\n"
        "[runtime]\nlog_format = 'xml'\n[run-time]\na = 1\nb = 2\n"
    )
    write("a b", drop_in="10-x.toml")
    write("[agent.kata]\nenable_debug = 1\n", drop_in="20-y.toml")
    assert [(each.file and each.file.name, each.line, each.key) for each in problems(path)] == [
        ("configuration.toml", 2, "hypervisor.qemu.default_memory"),
        ("configuration.toml", 3, "hypervisor.qemu.kernal"),
        ("configuration.toml", 5, "hypervisor.qemu.default_maxvcpus"),
        ("configuration.toml", 7, "runtime.log_format"),
        ("configuration.toml", 8, "run-time"),
        ("10-x.toml", None, ""),
        ("20-y.toml", 2, "agent.kata.enable_debug"),
    ]


def test_a_key_that_is_wrong_by_itself_is_not_held_against_others(write: Write) -> None:
    path = write("[hypervisor.qemu]\ndefault_vcpus = 8\ndefault_maxvcpus = 'x'\n")
    assert [each.key for each in problems(path)] == ["hypervisor.qemu.default_maxvcpus"]


def test_without_a_file_that_is_the_one_thing_wrong(places: list[Path]) -> None:
    [error] = problems(environ={})
    assert isinstance(error, NoConfiguration)
