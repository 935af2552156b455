"""What papers state, to be shown beside what is measured.

PSNR and SSIM under protocol ``y``: luma, scale pixels off, MATLAB's bicubic reduction. As read in the comparison tables
of EDSR, VDSR, FSRCNN, SRResNet's reimplementation by Lornatang, CARN, IMDN, RFDN, RLFN, SwinIR, RCAN, ESRGAN and HAT.
"""

from __future__ import annotations

SETS = {"set5": ("Set5", 5), "set14": ("Set14", 14), "b100": ("B100", 100), "bsd100": ("B100", 100),
        "urban100": ("Urban100", 100)}  # fmt: skip
"""Name of a folder in lower case -> the set and its number of pictures."""

_COLUMNS = ("Set5", "Set14", "B100", "Urban100")
_TABLE = {
    2: """
        Bicubic        33.66/.9299 30.24/.8688 29.56/.8431 26.88/.8403
        SRCNN          36.66/.9542 32.42/.9063 31.36/.8879 29.50/.8946
        FSRCNN         37.00/.9558 32.63/.9088 31.53/.8920 29.88/.9020
        VDSR           37.53/.9587 33.03/.9124 31.90/.8960 30.76/.9140
        CARN           37.76/.9590 33.52/.9166 32.09/.8978 31.92/.9256
        EDSR-baseline  37.99/.9604 33.57/.9175 32.16/.8994 31.98/.9272
        IMDN           38.00/.9605 33.63/.9177 32.19/.8996 32.17/.9283
        RFDN           38.05/.9606 33.68/.9184 32.16/.8994 32.12/.9278
        RLFN           38.07/.9607 33.72/.9187 32.22/.9000 32.33/.9299
        EDSR           38.11/.9601 33.92/.9195 32.32/.9013 32.93/.9351
        SwinIR-light   38.14/.9611 33.86/.9206 32.31/.9012 32.76/.9340
    """,
    3: """
        Bicubic        30.39/.8682 27.55/.7742 27.21/.7385 24.46/.7349
        SRCNN          32.75/.9090 29.28/.8209 28.41/.7863 26.24/.7989
        VDSR           33.66/.9213 29.77/.8314 28.82/.7976 27.14/.8279
        CARN           34.29/.9255 30.29/.8407 29.06/.8034 28.06/.8493
        IMDN           34.36/.9270 30.32/.8417 29.09/.8046 28.17/.8519
        RFDN           34.41/.9273 30.34/.8420 29.09/.8050 28.21/.8525
        SwinIR-light   34.62/.9289 30.54/.8463 29.20/.8082 28.66/.8624
    """,
    4: """
        Bicubic        28.42/.8104 26.00/.7027 25.96/.6675 23.14/.6577
        SRCNN          30.48/.8628 27.50/.7513 26.90/.7101 24.52/.7221
        FSRCNN         30.72/.8660 27.61/.7550 26.98/.7150 24.62/.7280
        VDSR           31.35/.8838 28.01/.7674 27.29/.7251 25.18/.7524
        SRResNet       32.16/.8938 28.57/.7815 27.56/.7367 -
        SRGAN          30.67/.8627 27.12/.7321 26.22/.6867 -
        EDSR-baseline  32.09/.8938 28.58/.7813 27.57/.7357 26.04/.7849
        CARN           32.13/.8937 28.60/.7806 27.58/.7349 26.07/.7837
        IMDN           32.21/.8948 28.58/.7811 27.56/.7353 26.04/.7838
        RFDN           32.24/.8952 28.61/.7819 27.57/.7360 26.11/.7858
        RLFN           32.24/.8952 28.62/.7813 27.60/.7364 26.17/.7877
        SwinIR-light   32.44/.8976 28.77/.7858 27.69/.7406 26.47/.7980
        EDSR           32.46/.8968 28.80/.7876 27.71/.7420 26.64/.8033
        RCAN           32.63/.9002 28.87/.7889 27.77/.7436 26.82/.8087
        RRDB           32.73/.9011 28.99/.7917 27.85/.7455 27.03/.8153
        ESRGAN         30.44/.8525 26.28/.6994 25.33/.6534 24.36/.7341
    """,
}
_METHODS = {"bicubic": "Bicubic", "srcnn": "SRCNN", "srresnet": "SRResNet", "srgan": "SRGAN", "rrdb": "RRDB",
            "rrdbnet": "RRDB", "esrgan": "ESRGAN"}  # fmt: skip
"""What a network is called here, or its file, without its scale -> the method of which papers speak."""


def table(dataset: str, images: int, scale: int) -> dict[str, tuple[float, float]]:
    """Return method -> PSNR and SSIM on a standard set; empty for others, and where pictures are missing or added."""
    name, expected = SETS.get(dataset.lower(), ("", 0))
    if images != expected or scale not in _TABLE:
        return {}
    column = _COLUMNS.index(name)
    rows = (line.split() for line in _TABLE[scale].strip().splitlines())
    found = {row[0]: row[1 + column].split("/") for row in rows if row[1 + column] != "-"}
    return {method: (float(values[0]), float(values[1])) for method, values in found.items()}


def published(dataset: str, images: int, scale: int, model: str) -> tuple[float, float] | None:
    """Return PSNR and SSIM that papers state for ``model``, the name of a network or of its file, or None."""
    family = model.removesuffix(f"-x{scale}")
    return table(dataset, images, scale).get(_METHODS.get(family, ""))
