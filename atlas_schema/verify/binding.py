"""Channel binding: are these the exact evidence rows?"""

from __future__ import annotations

from collections.abc import Sequence

from atlas_schema.documents.receipt import Receipt
from atlas_schema.evidence.digest import TableRoot, evidence_root
from atlas_schema.verify.outcome import ChannelResult, Problem


def check_binding(receipt: Receipt, found: Sequence[TableRoot], result: ChannelResult) -> None:
    """Compare the digests of all tables, ``found`` in order of declaration, with names, rows, roots (B001 to B004)."""
    stated = {t.name: TableRoot(t.name, t.rows, t.root) for t in receipt.evidence.tables}
    result.unit = "tables"
    if [t.name for t in receipt.evidence.tables] != [t.name for t in found]:
        result.report(Problem("ATL-B001", "The receipt does not list the declared tables.", document="receipt",
                              path=("evidence", "tables"), stated=", ".join(stated), recomputed=", ".join(t.name for t in found)))  # fmt: skip
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
