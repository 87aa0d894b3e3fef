"""The folder of images as MONAI Label's datastore, into which nothing but images and masks comes."""

from __future__ import annotations

import os
from typing import Any

from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore

from bundle.serving.label.requests import RequestError, checked_id, checked_tag
from bundle.transforms.load import PICTURE_RESULTS


class CheckedDatastore(LocalDatastore):
    """MONAI Label's own stores whatever is uploaded under the name it came with, its list of images included.

    Args:
        studies: the folder.
    """

    def __init__(self, studies: str) -> None:
        super().__init__(
            studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """As MONAI Label's.

        Raises:
            RequestError: the id is no plain file name, or the file has no ending of an image.
        """
        self._check("image", image_id, image_filename, [one.lstrip("*") for one in self._extensions])
        return super().add_image(image_id, image_filename, image_info)

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """As MONAI Label's.

        Raises:
            RequestError: the tag or id is none, or the file has no ending of a mask.
        """
        checked_tag(label_tag)
        self._check("label", image_id, label_filename, PICTURE_RESULTS)
        return super().save_label(image_id, label_filename, label_tag, label_info)

    def _check(self, what: str, name: str, file: str, endings: Any) -> None:
        checked_id(name, what)
        found = self._to_id(os.path.basename(file))[1]
        if found not in endings:
            raise RequestError(
                f"The {what} comes as {found[:20] or 'a file without ending'}; send one of {', '.join(endings)}."
            )
