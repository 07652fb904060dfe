"""
Published numbers of explanations, to draw beside one's own.

Only numbers that were read in a paper, a repository or slides stand here; those that somebody remembers do not.
Tables are written as they are printed, so that they can be held against the source; a column whose name ends in % is
divided by 100, because everything else here counts in fractions. A column is called as in result files (``metric`` or
``metric.field``), so that a run with the same settings finds its neighbour.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["REFERENCES", "ReferenceRow", "ReferenceTable"]


@dataclass(frozen=True)
class ReferenceRow:
    """
    One method on one network, as published.

    Attributes
    ----------
    net : str
        The network, as the source calls it.
    method : str
        The method as in result files; one that is not implemented here in the source's words.
    values : mapping of str to float
        By column, as fractions.
    data : str
        The pictures.
    note : str
        What is peculiar to this row.
    """

    net: str
    method: str
    values: Mapping[str, float]
    data: str
    note: str = ""

    def is_of(self, model: str) -> bool:
        """
        Tell whether a model's name says that it is this row's network.

        Parameters
        ----------
        model : str
            For example a file's name.

        Returns
        -------
        bool
            Case, hyphens and underscores do not matter; the wide ResNets are other networks.

        Examples
        --------
        >>> ReferenceRow("ResNet-50", "gradcam", {}, "ImageNet").is_of("torchvision_resnet50_v1.onnx")
        True
        """
        name = "[-_ ]?".join(re.escape(part) for part in self.net.lower().split("-"))
        return re.search(rf"(?<![a-z])(?<!wide[-_ ]){name}(?![0-9])", model.lower()) is not None


@dataclass(frozen=True)
class ReferenceTable:
    """
    One published table.

    Attributes
    ----------
    id : str
        Its name here.
    title : str
        What it is.
    source : str
        Where the numbers were read.
    caveat : str
        What must be known before comparing.
    columns : tuple of str
        In the order printed.
    rows : tuple of ReferenceRow
        In the order printed.
    """

    id: str
    title: str
    source: str
    caveat: str
    columns: tuple[str, ...]
    rows: tuple[ReferenceRow, ...]


def _read(
    id: str, title: str, source: str, caveat: str, printed: str, *, data: str, notes: Mapping[str, str] | None = None
) -> ReferenceTable:
    """
    Read a table as printed: a head, then lines of data set (if the head has it), network, method and numbers.

    A number that ends in a letter has the note of that letter; "-" is no number.
    """
    head, *lines = (line.split() for line in printed.strip().splitlines())
    first = head.index("method") + 1
    rows = []
    for line in lines:
        words = dict(zip(head[:first], line[:first], strict=True))
        values, marks = {}, []
        for name, word in zip(head[first:], line[first:], strict=True):
            if word != "-":
                number = word.rstrip("abcdefghijklmnopqrstuvwxyz")
                marks += list(word[len(number) :])
                values[name.rstrip("%")] = float(number) / (100 if name.endswith("%") else 1)
        method = words["method"]
        note = "; ".join(
            (notes or {})[mark] for mark in dict.fromkeys([*marks, *([method] if method in (notes or {}) else [])])
        )
        rows.append(ReferenceRow(words["net"], method, values, words.get("data", data).replace("_", " "), note))
    return ReferenceTable(id, title, source, caveat, tuple(name.rstrip("%") for name in head[first:]), tuple(rows))


_TABLES = (
    _read(
        "poppi",
        "Poppi et al. 2021, Revisiting the evaluation of class activation mapping",
        "arXiv:2104.10252, as reprinted in a figure of the ReciproCAM repository (arXiv:2209.14074)",
        "How insertion and deletion were set is not known. Its code uses torch-cam's automatic layer (VGG-16: "
        "after the last pool) and a Score-CAM and Grad-CAM++ of that time, which the protocol's variants reproduce.",
        """
net          method           average_drop% average_increase% deletion% insertion% coherency% complexity%  adcc%
VGG-16       gradcam                 66.42              5.92     11.12      19.56      69.20       15.65  53.52
VGG-16       gradcampp               32.88             20.10      8.82      36.60      89.34       26.33  75.65
VGG-16       smoothgradcampp         36.72             16.11     10.57      31.36      82.68       28.09  71.72
VGG-16       scorecam                26.13             24.75      9.52      47.00      93.83       20.27  81.66
VGG-16       reciprocam              21.51             34.86      9.50      46.88      92.24       27.48  80.27
ResNet-18    gradcam                 42.90             16.63     13.43      41.47      81.03       23.04  69.98
ResNet-18    gradcampp               17.85             34.46     12.30      44.80      98.18       44.63  74.24
ResNet-18    smoothgradcampp         20.67             29.99     12.83      43.13      97.53       43.11  74.20
ResNet-18    scorecam                12.81             40.41     10.76      46.01      98.35       41.78  77.30
ResNet-18    reciprocam              20.68             36.30     10.19      44.93      97.38       33.60  79.08
ResNet-50    gradcam                 32.99             24.27     17.49      48.48      82.80       22.24  75.27
ResNet-50    gradcampp               12.82             40.63     14.10      53.51      97.84       43.99  75.86
ResNet-50    smoothgradcampp         15.21             35.62     15.21      52.43      97.47       42.25  76.19
ResNet-50    scorecam                 8.61             46.00     13.33      54.16      98.12       42.05  78.14
ResNet-50    reciprocam              15.69             40.54     13.34      55.39      96.68       32.90  80.84
ResNet-101   gradcam                 29.38             29.35     18.66      47.47      81.97       22.51  76.40
ResNet-101   gradcampp               11.38             42.07     14.99      56.65      98.28       43.94  76.34
ResNet-101   smoothgradcampp         13.37             37.76     14.32      58.23      97.76       42.61  76.54
ResNet-101   scorecam                 7.20             47.93     14.63      59.57      98.37       42.04  78.55
ResNet-101   reciprocam              15.07             41.39     15.80      59.28      97.21       32.45  81.38
ResNeXt-50   gradcam                 28.06             29.42     20.73      50.30      82.72       25.57  76.09
ResNeXt-50   gradcampp               11.12             41.38     17.07      56.06      97.30       48.66  73.16
ResNeXt-50   smoothgradcampp         12.70             36.58     16.90      56.76      97.32       47.48  73.58
ResNeXt-50   scorecam                 7.20             45.70     15.59      57.92      98.00       46.86  75.38
ResNeXt-50   reciprocam              13.70             40.82     18.94      58.93      96.37       37.36  79.10
ResNeXt-101  gradcam                 24.12             36.37     20.47      61.04      82.94       25.45  77.62
ResNeXt-101  gradcampp                9.74             42.63     17.63      62.90      95.05       46.27  74.61
ResNeXt-101  smoothgradcampp          9.49             40.43     17.67      64.16      96.81       49.24  73.03
ResNeXt-101  scorecam                 5.37             47.70     17.30      63.61      97.03       46.83  75.60
ResNeXt-101  reciprocam              12.03             42.69     20.25      64.70      97.50       35.62  80.74
""",
        data="ImageNet validation",
        notes={
            "reciprocam": "ReciproCAM's own evaluator: true labels, coherency at the layer's size, 32-pixel blocks for "
            "insertion and deletion"
        },
    ),
    _read(
        "reciprocam",
        "ReciproCAM, trial run of the notebook",
        "the notebook in the ReciproCAM repository (arXiv:2209.14074)",
        "35 pictures only: the numbers show that the notebook runs, not how good the method is.",
        """
net        method      average_drop% average_increase% coherency% complexity%  adcc%
ResNet-50  reciprocam          15.18             74.29      83.77       45.08  71.54
""",
        data="35 pictures of ImageNet",
    ),
    _read(
        "scorecam",
        "Wang et al. 2020, Score-CAM",
        "the paper, arXiv:1910.01279",
        "Average drop and increase mute half of the pixels, which no other paper does. Which 2000 pictures were taken "
        "is not known; the energy game has 500, with one box of at most half the picture.",
        """
net    method              average_drop-score-cam% average_increase-score-cam% insertion-score-cam deletion-score-cam energy_pointing_game%
VGG-16 mask                                   63.5                        5.29                   -                  -                  56.1
VGG-16 rise                                   47.0                        14.0                   -                  -                  36.3
VGG-16 gradcam                                47.8                        19.6                .357               .089                  48.1
VGG-16 gradcampp                              45.5                        18.9                .346               .082                  49.3
VGG-16 scorecam                               31.5                        30.6                .386               .077                  63.7
VGG-16 gradient                                  -                           -                   -                  -                  41.3
VGG-16 smoothgrad                                -                           -                   -                  -                  42.4
VGG-16 integratedgradients                       -                           -                   -                  -                  44.7
""",
        data="2000 pictures of ImageNet validation",
    ),
    _read(
        "gradcampp",
        "Chattopadhay et al. 2018, Grad-CAM++",
        "the paper, arXiv:1710.11063",
        "Win compares the two methods of one data set and network. Sizes of the sets and preprocessing are not known.",
        """
data      net        method              average_drop% average_increase%    win%
ImageNet  VGG-16     gradcampp                   36.84             17.05   70.72
ImageNet  VGG-16     gradcam                     46.56             13.42   29.28
ImageNet  AlexNet    gradcampp                   62.75              8.24   86.56
ImageNet  AlexNet    gradcam                     82.86              3.16   13.44
ImageNet  ResNet-50  gradcampp                   28.90             22.16   60.51
ImageNet  ResNet-50  gradcam                     30.36             22.11   39.49
VOC_2007  VGG-16     gradcampp                   19.53             18.96  61.47t
VOC_2007  VGG-16     gradcam                     28.54             21.43  39.44t
VOC_2007  AlexNet    gradcampp                   29.16             19.76   72.79
VOC_2007  AlexNet    gradcam                     45.82             14.38   27.21
VOC_2007  ResNet-50  gradcampp                   16.19             19.52   58.61
VOC_2007  ResNet-50  gradcam                     20.86             21.99   41.39
VOC_2007  VGG-16     gradcampp-no-relu           32.43             19.12   26.09
""",
        data="",
        notes={"t": "the two shares won add up to 100.91 %, so one of them is misprinted"},
    ),
    _read(
        "gradcampp-loc",
        "Chattopadhay et al. 2018, Grad-CAM++, localisation",
        "the paper, arXiv:1710.11063",
        "Loc_I is inside / (box + outside), the map cut at 0, a quarter and a half.",
        """
net     method     loc_i@0 loc_i@0.25 loc_i@0.5
VGG-16  gradcampp      .34        .38       .28
VGG-16  gradcam        .33        .28       .16
""",
        data="VOC 2012",
    ),
    _read(
        "castream",
        "CA-Stream, rows of global average pooling",
        "the slides of CA-Stream, by the group of Opti-CAM",
        "Black masking. This ResNet-50 has a top-1 of 74.55 %, torchvision's first weights have 76.13 %; this "
        "ConvNeXt-B has 83.72 %.",
        """
net         method     average_drop% average_gain% average_increase% insertion-ca-stream% deletion-ca-stream%
ResNet-50   gradcam            13.04         17.56             44.47                72.57               13.24
ResNet-50   gradcampp          13.79         15.87             42.08                72.32               13.33
ResNet-50   scorecam            8.83         17.97             48.46                71.99               14.31
ConvNeXt-B  gradcam            33.72          2.43             15.25                52.85               29.57
ConvNeXt-B  gradcampp          34.01          2.37             15.60                52.83               29.17
ConvNeXt-B  scorecam           43.55          2.23             15.67                50.96               39.49
""",
        data="ImageNet validation",
    ),
    _read(
        "jafar",
        "JAFAR, Grad-CAM with bilinear upsampling",
        "the JAFAR paper",
        "Its pictures, preprocessing, layer and masking are not known.",
        """
net  method   average_drop% average_increase% average_gain% coherency% complexity% adcc%
ViT  gradcam           19.0              18.5           3.4       88.8        59.9  61.7
""",
        data="not known",
    ),
)

REFERENCES: Mapping[str, ReferenceTable] = {table.id: table for table in _TABLES}
