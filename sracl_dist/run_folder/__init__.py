"""The run folder: tables and files of every stage, described by a manifest.

    <run.dir>/<stage>/                 tables and files of the stage
    <run.dir>/<stage>/manifest.json    written last: the stage is done when it exists
    <run.dir>/<stage>/started.json     the work in progress, and the program that does it; see owner
    <run.dir>/<stage>/sums/            checksums of the files, by which a stage knows its own; see sums

Where run.tables is set, the stages of TABLE_STAGES lie below it instead, so that many runs share them.

A stage deletes and replaces only what a stage wrote. Other files in its folder are left alone and never read.
"""

from sracl_dist.run_folder.manifest import MANIFEST, Manifest
from sracl_dist.run_folder.run import TABLE_STAGES, RunFolder
from sracl_dist.run_folder.stage_folder import StageFolder, in_words

__all__ = ["MANIFEST", "TABLE_STAGES", "Manifest", "RunFolder", "StageFolder", "in_words"]
