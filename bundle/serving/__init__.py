"""The network at work beside a PACS (`pacs`) and behind MONAI Label (`label`)."""
