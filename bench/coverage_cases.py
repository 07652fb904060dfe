"""
Which models the coverage suite tries, and how they are made.

In: nothing. Out: cases by origin. Every architecture is taken at a small picture, which changes grids and costs but no
operator; sizes below are the smallest ones that leave the last layer a grid and every pooling a meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["IMAGES", "LIGHT", "MEMORY", "OLD_EXPORTER", "ORIGINS", "TIMM", "Case", "of_names"]

ORIGINS = {
    "torchvision": "torchvision, `torch.onnx.export(dynamo=True)`",
    "torchvision-old": "torchvision, the older exporter at opset 11",
    "timm": "timm, `torch.onnx.export(dynamo=True)`",
    "light": "light graphs of the onnx package",
    "files": "trained models from elsewhere",
}
MEMORY = 16 * 2**30  # bytes a process may hold
IMAGES = 12  # gradients of ReLU networks are bimodal: one picture says little
FEW = 4  # of the architectures that cost most in float64

OLD_EXPORTER = (
    "alexnet",
    "vgg11",
    "resnet18",
    "squeezenet1_1",
    "densenet121",
    "googlenet",
    "mobilenet_v2",
    "shufflenet_v2_x1_0",
    "efficientnet_b0",
    "convnext_tiny",
)  # one a family, as far as opset 11 can say it

_SIZES = (
    ("alexnet", 224),  # adaptive pooling to 6x6 and 7x7 is the identity at the size they were made for
    ("vgg", 224),
    ("inception_v3", 128),
    ("shufflenet_v2_x0_5", 128),  # so narrow that at 64 one ReLU at its kink turns a gradient, float32 autograd's too
    ("maxvit", 224),  # windows of 7 have to fit at every stage
    ("swin", 128),  # windows shift in all stages but the last
    ("vit_h_14", 56),
)
_SMALL = 64
_COSTLY = ("vit_h", "regnet_y_128gf")

LIGHT = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)

TIMM = (
    ("beit_base_patch16_224", 64),
    ("botnet26t_256", 128),
    ("cait_xxs24_224", 96),
    ("coat_lite_tiny", 96),
    ("coat_tiny", 96),
    ("coatnet_nano_rw_224", 96),
    ("convit_tiny", 96),
    ("convmixer_768_32", 64),
    ("convnext_atto", 64),
    ("convnextv2_atto", 64),
    ("crossvit_tiny_240", 240),
    ("cs3darknet_focus_s", 64),
    ("cspnext_tiny", 64),
    ("davit_tiny", 96),
    ("deit_tiny_distilled_patch16_224", 96),
    ("densenet121", 64),
    ("dla46_c", 64),
    ("dpn48b", 64),
    ("edgenext_xx_small", 64),
    ("efficientformer_l1", 224),
    ("efficientformerv2_s0", 128),
    ("efficientnet_b0", 64),
    ("efficientvit_b0", 64),
    ("efficientvit_m0", 128),
    ("ese_vovnet19b_slim", 64),
    ("eva02_tiny_patch14_336", 84),
    ("fasternet_t0", 64),
    ("fastvit_t8", 64),
    ("focalnet_tiny_srf", 64),
    ("gcvit_xxtiny", 128),
    ("gernet_s", 64),
    ("ghostnet_050", 64),
    ("gmlp_ti16_224", 96),
    ("halonet26t", 256),
    ("hardcorenas_a", 64),
    ("hgnetv2_b0", 64),
    ("hiera_tiny_224", 224),
    ("hrnet_w18_small", 64),
    ("inception_next_atto", 64),
    ("inception_resnet_v2", 128),
    ("inception_v4", 128),
    ("lambda_resnet26t", 128),
    ("lcnetv2_small", 64),
    ("legacy_seresnet18", 64),
    ("legacy_xception", 64),
    ("levit_128s", 224),
    ("mambaout_femto", 64),
    ("maxvit_nano_rw_256", 128),
    ("mixer_s32_224", 96),
    ("mobilenetv3_small_050", 64),
    ("mobilenetv4_conv_small", 64),
    ("mobileone_s0", 64),
    ("mobilevit_xxs", 64),
    ("mobilevitv2_050", 64),
    ("mvitv2_tiny", 128),
    ("nest_tiny", 112),
    ("nextvit_small", 64),
    ("nf_regnet_b0", 64),
    ("pit_ti_224", 96),
    ("poolformer_s12", 64),
    ("pvt_v2_b0", 64),
    ("rdnet_tiny", 64),
    ("regnetx_002", 64),
    ("repghostnet_050", 64),
    ("repvit_m0_9", 64),
    ("res2net50_48w_2s", 64),
    ("resmlp_12_224", 96),
    ("resnest14d", 64),
    ("resnet10t", 64),
    ("resnetv2_18", 64),
    ("rexnet_100", 64),
    ("selecsls42", 64),
    ("sequencer2d_s", 96),
    ("shvit_s1", 128),
    ("skresnet18", 64),
    ("starnet_s050", 64),
    ("swiftformer_xs", 96),
    ("swin_tiny_patch4_window7_224", 128),
    ("swinv2_cr_tiny_224", 128),
    ("swinv2_tiny_window8_256", 128),
    ("tiny_vit_5m_224", 128),
    ("tnt_s_patch16_224", 96),
    ("tresnet_m", 64),
    ("twins_svt_small", 64),
    ("vgg11", 224),
    ("visformer_tiny", 96),
    ("vit_base_patch32_clip_224.laion2b_ft_in1k", 96),
    ("vit_medium_patch16_reg4_gap_256", 96),
    ("vit_relpos_small_patch16_224", 96),
    ("vit_tiny_patch16_224", 96),
    ("vit_tiny_r_s16_p8_224", 96),
    ("volo_d1_224", 96),
    ("xception41", 64),
    ("xcit_nano_12_p16_224", 96),
)  # the smallest member of a family, and its picture: windows and position tables bind the transformers


@dataclass(frozen=True)
class Case:
    """
    One model to try.

    Attributes
    ----------
    origin : str
        A key of `ORIGINS`.
    name : str
        An architecture, or a file.
    exporter : str
        ``"dynamo"``, ``"torchscript"``, or ``""`` for a file as it is.
    opset : int or None
        What the exporter is asked for; None for its own default.
    size : int
        Pixels a side; 0 for what the file takes.
    images : int
        How many pictures.
    """

    origin: str
    name: str
    exporter: str = ""
    opset: int | None = None
    size: int = 0
    images: int = IMAGES

    @property
    def key(self) -> str:
        """Name the case in results."""
        return f"{self.origin}/{self.name}"


def _torchvision(origin: str, name: str, exporter: str, opset: int | None) -> Case:
    """Return the case of a torchvision architecture, at its small size."""
    size = next((size for start, size in _SIZES if name.startswith(start)), _SMALL)
    return Case(origin, name, exporter, opset, size, FEW if name.startswith(_COSTLY) else IMAGES)


def of_names(origin: str, names: Sequence[str]) -> list[Case]:
    """
    Return the cases of an origin.

    Parameters
    ----------
    origin : str
        A key of `ORIGINS`.
    names : sequence of str
        Architectures for ``"torchvision"``, files for ``"files"``; the other origins have lists of their own.

    Returns
    -------
    list of Case
        In order.
    """
    if origin == "torchvision":
        return [_torchvision(origin, name, "dynamo", None) for name in names]
    if origin == "torchvision-old":
        return [_torchvision(origin, name, "torchscript", 11) for name in OLD_EXPORTER]
    if origin == "timm":
        return [Case(origin, name, "dynamo", None, size) for name, size in TIMM]
    return [Case(origin, name) for name in (LIGHT if origin == "light" else names)]
