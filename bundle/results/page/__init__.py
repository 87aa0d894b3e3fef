"""What people look at: a page a case, and one page over all cases of a run."""

from bundle.results.page.case import write_case_page
from bundle.results.page.index import write_index

__all__ = ["write_case_page", "write_index"]
