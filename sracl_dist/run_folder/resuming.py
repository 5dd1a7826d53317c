"""What a stage goes on from when it begins: its own whole files, and those that are kept."""

from collections.abc import Sequence

from sracl_dist.observe import say
from sracl_dist.run_folder.folder import TEMPORARY
from sracl_dist.run_folder.manifest import MANIFEST
from sracl_dist.run_folder.stage_folder import BOOKKEEPING, StageFolder, in_words
from sracl_dist.run_folder.sums import SUMS, sums_in, wrong_sizes


def leave_own_files(
    folder: StageFolder, before: str | None, fingerprint: str, keep: Sequence[str], libraries: Sequence[str]
) -> tuple[list[str], frozenset[str]]:
    """Delete the manifest and what is of other work, half written or damaged.

    Args:
        folder: of the stage, which this program owns.
        before: fingerprint of the work whose files lie there, where it is known.
        fingerprint: of this work.
        keep: names and folders that survive a change of settings.
        libraries: folders whose files have no sums, and belong to `before`.

    Returns:
        Names of files of this work, or that are kept, which were damaged; and of files that are not the stage's.
    """
    # A program that was killed left the sum of a file that it did not get to; of a finished stage nothing may miss.
    was_killed = before is not None and not folder.exists(MANIFEST)
    infos = folder.infos()
    sums = sums_in(infos)
    stay = {
        name: {own for own in several if name.startswith(tuple(keep)) or own.fingerprint == fingerprint}
        for name, several in sums.items()
    }
    stay = {name: several for name, several in stay.items() if several and not (was_killed and name not in infos)}
    damage = wrong_sizes(infos, stay)
    damage |= folder.wrong_contents({name: own for name, own in stay.items() if name not in damage})
    gone = [name for name in sums if name not in stay or name in damage]
    if before not in (None, fingerprint):
        gone += [name for name in infos if name.startswith(tuple(libraries))]
    gone += [name for name in infos if TEMPORARY.search(name) and not name.startswith(tuple(libraries))]
    folder.require_owner()
    folder.delete([MANIFEST, *(name for name in gone if name in infos)])
    folder.delete_sums(name for name in gone if name not in infos)
    if damage:
        say(f"{folder.name}: {in_words(damage)}; made again")
    own = (f"{SUMS}/", *libraries)
    foreign = infos.keys() - sums.keys() - set(BOOKKEEPING)
    return sorted(damage), frozenset(name for name in foreign if not name.startswith(own))
