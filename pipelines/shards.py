"""What a run reads: input patterns expanded to shards, each with an identity (name, size, content tag)."""

import hashlib
import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ovsops.errors import ConfigError
from pipelines.braces import expand_braces, fixed_prefix, glob_to_regex, is_glob
from pipelines.keys import (
    FOREIGN_IMAGE,
    FOREIGN_IMAGE_EXTENSIONS,
    IMAGE_EXTENSIONS,
    PICKLE_EXTENSIONS,
    SIDECAR_EXTENSIONS,
    extension_of,
    folder_key,
)
from pipelines.redact import redact
from pipelines.storage import (
    ObjectInfo,
    Storage,
    StorageOptions,
    local_path,
    open_storage,
    scheme_of,
    split_url,
)

logger = logging.getLogger(__name__)

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
FILES_PER_FOLDER_SHARD = 1000
"""A folder of images is cut into shards of about this many files, never inside a sample."""

_SLUG_STEM_CHARS = 80


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A unit of work: one archive, or up to about 1000 files of a folder of images."""

    name: str
    """Path below the fixed folder of the pattern that found it; unique in a run."""
    slug: str
    """File stem for this shard's outputs: safe characters and a hash of `name`."""
    url: str
    """The archive, or the folder that `members` are below."""
    size: int
    """Bytes."""
    tag: str
    """Changes when the content does. For a folder, a hash over its members' paths, sizes and tags."""
    kind: Literal["tar", "folder", "labels"]
    """`labels`: the committed tables of a shard that was labelled, for the jobs that come after."""
    members: tuple[str, ...] = ()
    """Files of a folder shard, sorted by key; a sample's files are never in two shards."""
    ignored: tuple[tuple[str, int], ...] = ()
    """Files of the folder that belong to no sample, counted by reason; on its first shard only."""

    @property
    def id(self) -> str:
        """Path, size and content tag in one safe name: what commits and output files are called after."""
        version = hashlib.blake2b(f"{self.size}:{self.tag}".encode(), digest_size=4).hexdigest()
        return f"{self.slug}-{version}"


def expand_inputs(patterns: Sequence[str], options: StorageOptions | None = None) -> list[Shard]:
    """The shards that `patterns` name, sorted by name.

    A pattern is a local path or `s3://` URL of an archive or a folder, with brace ranges (`{000..123}`),
    choices (`{a,b}`) and globs (`*`, `?`, `[..]`, `**/`). A folder that holds archives stands for these; a
    folder that holds none is cut into shards of image files. Each folder is listed once.

    Raises `ConfigError` for a pattern without a match, a missing member of a brace range, and two different
    shards of one name; `StorageError` when a place cannot be read.
    """
    if not patterns:
        raise ConfigError("input.shards is empty: name at least one archive, pattern or folder of images")
    catalog = _Catalog(options or StorageOptions())
    shards: dict[str, Shard] = {}
    urls: dict[tuple[str, tuple[str, ...]], str] = {}
    for pattern in patterns:
        for shard in _expand(pattern, catalog):
            if urls.setdefault((shard.url, shard.members), shard.name) != shard.name:
                continue  # two patterns found the same shard: the first one names it
            known = shards.setdefault(shard.name, shard)
            if (known.url, known.members) != (shard.url, shard.members):
                raise ConfigError(
                    f"inputs {redact(known.url)} and {redact(shard.url)} are both called {shard.name!r}: "
                    "use one pattern with a common folder, so that the names differ"
                )
    return [shards[name] for name in sorted(shards)]


def shard_slug(name: str) -> str:
    """A file stem that is safe everywhere and differs for different names."""
    stem = name.rsplit("/", 1)[-1]
    for suffix in TAR_SUFFIXES:
        stem = stem.removesuffix(suffix)
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[:_SLUG_STEM_CHARS].strip("-") or "shard"
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=5).hexdigest()
    return f"{safe}-{digest}"


def members_tag(infos: Sequence[ObjectInfo]) -> str:
    """The content tag of a folder shard."""
    digest = hashlib.blake2b(digest_size=16)
    for info in infos:
        digest.update(f"{info.path}\0{info.size}\0{info.tag}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


class _Catalog:
    """Listings, each made once."""

    def __init__(self, options: StorageOptions) -> None:
        self._options = options
        self._storages: dict[str, Storage] = {}
        self._listings: dict[tuple[str, bool, str], dict[str, ObjectInfo]] = {}

    def storage(self, url: str) -> Storage:
        return self._storages.setdefault(url, open_storage(url, self._options))

    def listing(self, url: str, *, recursive: bool, name_prefix: str = "") -> dict[str, ObjectInfo]:
        key = (url, recursive, name_prefix)
        if key not in self._listings:
            found = self.storage(url).list(recursive=recursive, name_prefix=name_prefix)
            self._listings[key] = {info.path: info for info in found}
        return self._listings[key]


def _expand(pattern: str, catalog: _Catalog) -> Iterator[Shard]:
    is_literal = (
        scheme_of(pattern) == "file" and local_path(pattern).exists()
    )  # photos[1] may be a folder's name
    if not is_literal and (is_glob(pattern) or "{" in pattern):
        yield from _expand_pattern(pattern, catalog)
    else:
        yield from _expand_path(pattern, catalog)


def _expand_path(pattern: str, catalog: _Catalog) -> Iterator[Shard]:
    folder, name = split_url(pattern)
    if name and not pattern.endswith("/"):
        try:
            info = catalog.storage(folder).info(name)
        except FileNotFoundError:
            pass  # not a file: it may be a folder
        else:
            if extension_of(name) in IMAGE_EXTENSIONS:
                raise ConfigError(
                    f"input {redact(pattern)} is one image: give its folder, or pack it into a shard"
                )
            yield from _tar_shards(folder, [name], {name: info})
            return
    root = f"{folder.rstrip('/')}/{name}" if name else folder
    listing = catalog.listing(root, recursive=True)
    if not listing:
        raise ConfigError(f"input {redact(pattern)} does not exist or is empty: check the path")
    tars = [path for path in listing if path.endswith(TAR_SUFFIXES)]
    if tars:
        images = sum(extension_of(path) in IMAGE_EXTENSIONS for path in listing)
        if images:
            logger.warning(
                "%s holds %d archives; its %d loose images are not read", redact(pattern), len(tars), images
            )
        yield from _tar_shards(root, tars, listing)
        return
    yield from _folder_shards(pattern, catalog.storage(root), list(listing.values()))


def _expand_pattern(pattern: str, catalog: _Catalog) -> Iterator[Shard]:
    fixed = fixed_prefix(pattern)
    folder, _, name_prefix = fixed.rpartition("/")
    if folder.lower() in ("s3:/", "s3:"):
        raise ConfigError(f"input {redact(pattern)}: the bucket's name cannot be a pattern")
    rest = pattern[len(folder) + 1 :] if "/" in fixed else pattern
    root = folder or ("/" if pattern.startswith("/") else ".")
    listing = catalog.listing(root, recursive="/" in rest or "**" in rest, name_prefix=name_prefix)
    names = expand_braces(rest)
    if not is_glob(rest):
        missing = [name for name in names if name not in listing]
        if missing:
            raise ConfigError(
                f"input {redact(pattern)}: {len(missing)} of {len(names)} names are missing, "
                f"the first {', '.join(missing[:3])}; correct the range or restore the shards"
            )
        yield from _tar_shards(root, names, listing)
        return
    chosen: dict[str, ObjectInfo] = {}
    for name in names:
        matcher = glob_to_regex(name)
        found = {path: info for path, info in listing.items() if matcher.match(path)}
        if not found:
            raise ConfigError(f"input {redact(pattern)} matches no file: check the path and the pattern")
        chosen |= found
    tars = [path for path in chosen if path.endswith(TAR_SUFFIXES)]
    if tars:
        yield from _tar_shards(root, tars, chosen)
        return
    yield from _folder_shards(pattern, catalog.storage(root), list(chosen.values()))


def _tar_shards(root: str, paths: Sequence[str], infos: Mapping[str, ObjectInfo]) -> Iterator[Shard]:
    folder = open_storage(root).url.rstrip("/")
    for path in paths:
        info = infos[path]
        yield Shard(
            name=path, slug=shard_slug(path), url=f"{folder}/{path}", size=info.size, tag=info.tag, kind="tar"
        )


def _folder_shards(pattern: str, storage: Storage, infos: Sequence[ObjectInfo]) -> Iterator[Shard]:
    links = sum(info.is_link for info in infos) + storage.count_linked_folders()
    files = [info for info in infos if not info.is_link]
    samples = [info for info in files if extension_of(info.path) in IMAGE_EXTENSIONS | SIDECAR_EXTENSIONS]
    if not any(extension_of(info.path) in IMAGE_EXTENSIONS for info in samples):
        raise ConfigError(
            f"input {redact(pattern)} names no archive ({', '.join(TAR_SUFFIXES)}) and no folder with images "
            f"({', '.join(sorted(IMAGE_EXTENSIONS))}): check the path"
        )
    foreign = sum(extension_of(info.path) in FOREIGN_IMAGE_EXTENSIONS for info in files)
    pickles = sum(extension_of(info.path) in PICKLE_EXTENSIONS for info in files)
    counts = {
        FOREIGN_IMAGE: foreign,
        "other": len(files) - len(samples) - foreign - pickles,
        "pickle": pickles,
        "symlink": links,
    }
    ignored = tuple((reason, count) for reason, count in counts.items() if count)
    samples.sort(key=lambda info: (folder_key(info.path), info.path))
    label = storage.url.rstrip("/").rsplit("/", 1)[-1]
    for number, members in enumerate(_cut(samples)):
        name = f"{label}/folder-{number:06d}"
        yield Shard(
            name=name,
            slug=shard_slug(name),
            url=storage.url,
            size=sum(info.size for info in members),
            tag=members_tag(members),
            kind="folder",
            members=tuple(info.path for info in members),
            ignored=ignored if number == 0 else (),
        )


def _cut(infos: Sequence[ObjectInfo]) -> Iterator[list[ObjectInfo]]:
    """Runs of at least FILES_PER_FOLDER_SHARD files that end where a sample ends."""
    run: list[ObjectInfo] = []
    for _, group in itertools.groupby(infos, key=lambda info: folder_key(info.path)):
        run += group
        if len(run) >= FILES_PER_FOLDER_SHARD:
            yield run
            run = []
    if run:
        yield run
