"""Channel binding: are these the exact evidence rows?"""

from __future__ import annotations

from collections.abc import Sequence

from atlas_schema.documents.receipt import Receipt
from atlas_schema.evidence.digest import TableRoot, evidence_root
from atlas_schema.signing.statement import UNREAD, File
from atlas_schema.verify.outcome import ChannelResult, Problem

SHOWN = 20
"""How many files that nobody signed a report lists."""


def check_binding(receipt: Receipt, found: Sequence[TableRoot], result: ChannelResult) -> None:
    """Compare the digests of all tables, ``found`` in order of declaration, with names, rows, roots (B001 to B004)."""
    stated = {t.name: TableRoot(t.name, t.rows, t.root) for t in receipt.evidence.tables}
    result.unit = "tables" if result.unit == "checks" else result.unit
    if [t.name for t in receipt.evidence.tables] != [t.name for t in found]:
        result.report(Problem("ATL-B001", "The receipt does not list the declared tables.", document="receipt",
                              path=("evidence", "tables"), stated=", ".join(stated), recomputed=", ".join(t.name for t in found),
                              todo="obtain the receipt as it was issued: it is about other tables than this version reads"))  # fmt: skip
    for at, table in enumerate(found):
        result.check()
        claimed = stated.get(table.name)
        if claimed is None:
            continue
        if claimed.rows != table.rows:
            result.report(Problem("ATL-B002", f"Table {table.name} has another number of rows.", document="receipt",
                                  path=("evidence", "tables", at, "rows"), stated=str(claimed.rows), recomputed=str(table.rows),
                                  todo="obtain the evidence that the receipt was issued for"))  # fmt: skip
        if claimed.root != table.root:
            result.report(Problem("ATL-B003", f"Table {table.name} has other content.", document="receipt",
                                  path=("evidence", "tables", at, "root"), stated=claimed.root, recomputed=table.root,
                                  todo="a value was changed, or this is the evidence of another receipt"))  # fmt: skip
    result.check()
    root = evidence_root(found)
    if receipt.evidence.root != root:
        result.report(Problem("ATL-B004", "The evidence root is another one.", document="receipt", path=("evidence", "root"),
                              stated=receipt.evidence.root, recomputed=root))  # fmt: skip


def check_files(signed: tuple[File, ...], found: tuple[File, ...] | None, result: ChannelResult) -> None:
    """Compare the files of the evidence with those of a signed manifest: names, sizes, SHA-256, none more or fewer (B010)."""
    result.unit = "tables and files"
    if found is None:
        result.total += len(signed)
        result.report(Problem("ATL-B010", "The files of the evidence could not be compared with those signed.", unproven=True,
                              where="evidence", todo="give the evidence as files"))  # fmt: skip
        return
    here = {file.name: file for file in found}
    for file in signed:
        result.check()
        other = here.pop(file.name, None)
        if other is None:
            result.report(Problem("ATL-B010", "A signed file of the evidence is missing.", where=file.name,
                                  todo="obtain the whole bundle as it was signed"))  # fmt: skip
        elif other.sha256 == UNREAD and other.size == file.size:
            continue  # another file is wrong, so that none was read
        elif other != file:
            result.report(Problem("ATL-B010", "A file of the evidence is not the one that was signed.", where=file.name,
                                  stated=f"{file.size} bytes, sha256:{file.sha256}",
                                  recomputed=f"{other.size} bytes" + ("" if other.sha256 == UNREAD else f", sha256:{other.sha256}"),
                                  todo="obtain the bundle as it was signed; writing the same rows anew changes a file's bytes"))  # fmt: skip
    result.check()
    for name in sorted(here)[:SHOWN]:
        result.report(Problem("ATL-B010", "The evidence holds a file that was not signed.", where=name,
                              todo="obtain the bundle as it was signed"))  # fmt: skip
    if len(here) > SHOWN:
        result.report(Problem("ATL-B010", f"The evidence holds {len(here)} files that were not signed."))
