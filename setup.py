"""What pyproject.toml cannot say: a wheel has configs/ and models/ within the package, as bundle/shipped/."""

from setuptools import find_packages, setup

SHIPPED = {
    "configs": ["*.yaml", "*.json", "*.conf"],
    "models": ["model.pt", "README.md"],
    **{
        f"models.{name}": ["*.json", "*.safetensors", "README.md"]
        for name in ("image_ddpm", "text_prior", "text_prior_bert", "vision_prior")
    },
}

setup(
    packages=[*find_packages(include=["bundle*"]), *(f"bundle.shipped.{name}" for name in SHIPPED)],
    package_dir={f"bundle.shipped.{name}": name.replace(".", "/") for name in SHIPPED},
    package_data={
        "bundle.learning": ["*.md"],
        "bundle.wording": ["*.yaml"],
        "bundle.results": ["*.npy"],
        "bundle.results.page": ["templates/*", "static/*"],
        **{f"bundle.shipped.{name}": patterns for name, patterns in SHIPPED.items()},
    },
)
