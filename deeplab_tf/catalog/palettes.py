"""The colour maps of the release, as facts (its utils/get_dataset_colormap.py), and that of sets that bring none."""

import math
import operator
from collections.abc import Sequence

from deeplab_tf.errors import DeepLabError, unknown_name

# Red, green, blue in 0..255.
Colour = tuple[int, int, int]
# A colour for each label, in label order.
Palette = tuple[Colour, ...]


def pascal_palette(size: int) -> Palette:
    """Returns the first `size` (0..512) colours of the PASCAL VOC rule.

    Bits 3j, 3j+1 and 3j+2 of the label become bit 7-j of red, green and blue: near labels get far colours.

    >>> from deeplab_tf.catalog.palettes import pascal_palette
    >>> pascal_palette(4)
    ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    """
    if not 0 <= size <= 512:
        raise DeepLabError(
            f"a PASCAL palette of {size} colours: expected 0 to 512, all of which the rule makes distinct"
        )
    return tuple(_pascal_colour(label) for label in range(size))


def _pascal_colour(label: int) -> Colour:
    channels = [sum((label >> (3 * j + channel) & 1) << (7 - j) for j in range(8)) for channel in range(3)]
    return channels[0], channels[1], channels[2]


def _colours(text: str) -> Palette:
    """Returns the palette of colours written in six hexadecimal digits each."""
    return tuple((int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in text.split())


ADE20K_COLOURS = _colours(
    """000000 787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846
    08ff33 ff0652 8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c
    7009ff 08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14 ff0829 ff0599
    0633ff eb0cff a09614 00a3ff 8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff
    1f00ff 0bc8c8 ff5200 00fff5 003dff 00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00 008fff 33ff00 0052ff 00ff29
    00ffad 0a00ff adff00 00ff99 ff5c00 ff00ff ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc
    00ffc2 00ff52 000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900 00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00
    08b8aa 8500ff 00ff5c b800ff ff001f 00b8ff 00d6ff ff0070 5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00
    ff00a3 ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff ff007a fff500 0abed4 d6ff00 00ccff 1400ff ffff00 0099ff
    0029ff 00ffcc 2900ff 29ff00 ad00ff 00f5ff 4700ff 7a00ff 00ffb8 005cff b8ff00 0085ff ffd600 19c2c2 66ff00
    5c00ff"""
)


MAPILLARY_VISTAS_COLOURS = _colours(
    """a52a2a 00c000 c4c4c4 be9999 b4a5b4 66669c 66669c 8040ff 8c8cc8 aaaaaa faaaa0 606060 e6968c 804080 6e6e6e
    f423e8 966464 464646 96785a dc143c ff0000 ff0000 ff0000 c88080 ffffff 40aa40 804040 4682b4 ffffff 98fb98
    6b8e23 00aa1e ffff80 fa001e 000000 dcdcdc aaaaaa de2828 64aa1e 282828 212121 aaaaaa 00008e aaaaaa d2aa64
    999999 808080 00008e faaa1e c0c0c0 dcdc00 b4a5b4 770b20 00008e 003c64 00008e 00005a 0000e6 005064 804040
    00006e 000046 0000c0 202020 000000 000000"""
)


CITYSCAPES_COLOURS = _colours(
    """804080 f423e8 464646 66669c be9999 999999 faaa1e dcdc00 6b8e23 98fb98 4682b4 dc143c ff0000 00008e 000046
    003c64 005064 0000e6 770b20"""
)


SHAPES_COLOURS = _colours("000000 e6484d 3fa34d f2c12e 3d7be0 a44ac2 19b5c9 a0744a ff8fc0")


# Seven of Okabe and Ito's eight (jfly.uni-koeln.de/color), without black; each further one is that of a grid of sRGB,
# of L* 40 to 93, which is the farthest (CIEDE2000) from all before it, from black and from the colour of void: of the
# first sixteen also as protanopes and deuteranopes see them (Machado, Oliveira and Fernandes 2009, severity 1).
DISTINCT_COLOURS = _colours(
    """
    56b4e9 d55e00 009e73 f0e442 0072b2 cc79a7 e69f00 78ffff c3003c 695a69 8778ff c3b4b4 69695a c30f96 87d278
    780fff 878700 ff8778 0f7800 f0c3ff 875a00 1e6969 789696 a58769 ff00ff 8787a5 ffc396 d2e1f0 5a5aa5 a56969
    ff001e 00ffc3 2da500 ff0078 a5ff00 a5a578 ffb4c3 964b2d a5b4f0 78c3b4 96b400 9669b4 4b785a ff87f0 b4780f
    e1c378 877878 ff870f 3c87ff 0087a5 96d2e1 964b69 5a6900 c3f0d2 00b4c3 ffe1f0 b496d2 005aff 697887 00ff69
    ff7896 789678 c3785a 96a5b4 c30000 878778 b4963c c300e1 c39696 ffe1d2 a5b4a5 e1f096 69873c 785a4b ff3cb4
    d2965a 87784b 2dc387 008778 00d200 c378ff e14b5a f0b4a5 967896 5a7878 c3b400 c3b4d2 874b87 6978b4 a5ffb4
    ff693c 873cb4 a5d2ff a5c396 c35a78 785ae1 ffc300 d2f0f0 ffe1b4 78a55a 00d2ff e1e1ff 006987 a5693c 964b4b
    d20069 b45a96 c34b3c a596a5 c3b496 d27878 0f874b 0096e1 967800 00e1d2 f09669 696987 3ca596 5a693c c35ad2
    c3c369 f0a5d2 b44b00 78a5e1 969696 a596ff c3e13c 87e1b4 c3c3d2 c396b4 ffb45a 78690f a55aff d2a587 87d200
    5a96b4 87b4b4 e13c00 4b6987 b4f078 00e1f0 699600 2de187 5a8778 a5a54b b47887 b4d2c3 87694b 87ffe1 3ca55a
    d2a5ff 876978 e10fc3 2dc35a 697869 b4c3c3 78b487 ff78c3 967869 c3c396 8796c3 d2781e f0e187 ff5a5a b48778
    00c3a5 78a596 d2d2d2 c3c3b4 f0c3e1 d278d2 a59687 c3e1a5 e196a5 4b783c 0f5ac3 007887 696969 e1c3a5 0096a5
    ff6900 87874b a54bb4 c3d2ff 9687d2 6987a5 a55a00 96e1e1 e12d96 5af00f a5a5c3 695a87 69b400 ffd2d2 96a5a5
    f069ff a5c369 7869b4 4b695a f05a96 78785a 787887 3c8787 e1002d d2c3ff f0e1e1 785a5a 69a5b4 a58787 7887e1
    b42d2d 963cf0 00785a c33c5a a51ea5 e15a3c 785a2d c3a569 d2b4c3 785a78 5a69d2 a5a596 b4874b d25ab4 8778a5
    5a8796 3c3cff d28700 a56987 879687 f05a78 ffa5a5 965a4b d2a500 00962d e1d2c3 d296d2 4b8700 b4c3d2 3c78d2
    78695a b4b4b4 87963c c35a2d b43c78 5a875a e19687 00a5d2 b4695a 5aa5a5 694bb4 b4f0ff b478b4 96a587 5a6969
    3c7896"""
)
_DISTINCT_BEHIND_BLACK = ((0, 0, 0), *DISTINCT_COLOURS)
_BACKGROUNDS = ("background", "bg", "other", "others", "rest", "unlabeled", "unlabelled", "void")


def default_palette(class_names: Sequence[str]) -> Palette:
    """Returns the colours of classes that have none: made for telling apart, also by the colour-blind.

    A first class that is called background or the like is black. Of more than 256 classes, which no label of 8 bits
    has, there are none.

    >>> from deeplab_tf.catalog.palettes import default_palette
    >>> default_palette(["background", "cat", "dog"])
    ((0, 0, 0), (86, 180, 233), (213, 94, 0))
    """
    if not 0 < len(class_names) <= 256:
        return ()
    behind = class_names[0].strip("_ ").lower() in _BACKGROUNDS
    return (_DISTINCT_BEHIND_BLACK if behind else DISTINCT_COLOURS)[: len(class_names)]


_NEAR = 25.0  # in CIELAB, where black and white are 100 apart


def _lab(colour: Colour) -> tuple[float, float, float]:
    """Returns the CIELAB value (L*a*b*, D65) of a colour of sRGB."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    # To XYZ, of which white has 1 each.
    rows = ((0.43395, 0.37622, 0.18983), (0.21267, 0.71516, 0.07218), (0.01776, 0.10947, 0.87277))
    xyz = [sum(map(operator.mul, row, linear)) for row in rows]
    x, y, z = (value ** (1 / 3) if value > (6 / 29) ** 3 else value * (29 / 6) ** 2 / 3 + 4 / 29 for value in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def further_colours(used: Sequence[Colour], count: int) -> Palette:
    """Returns colours for `count` more classes, of those that are made for telling apart.

    They are taken in their order, first those that are not near to a used one.

    >>> from deeplab_tf.catalog.palettes import further_colours
    >>> further_colours([(0, 0, 0), (90, 180, 230)], 2)
    ((213, 94, 0), (0, 158, 115))
    """
    taken = [_lab(colour) for colour in used]
    free = [colour for colour in DISTINCT_COLOURS if colour not in used]
    near = {colour: any(math.dist(_lab(colour), other) < _NEAR for other in taken) for colour in free}
    return tuple(sorted(free, key=near.__getitem__)[:count])


def is_default(palette: Sequence[Colour]) -> bool:
    """Returns whether a palette is one that sets get which bring none: `default_palette`, or before it PASCAL's."""
    known = (DISTINCT_COLOURS, _DISTINCT_BEHIND_BLACK, pascal_palette(min(len(palette), 512)))
    return tuple(palette) in [colours[: len(palette)] for colours in known]


def label_palette(palette: Palette) -> Palette:
    """Returns the colours that labels are drawn in by other programs: PASCAL's where a set brings none of its own."""
    return pascal_palette(len(palette)) if is_default(palette) else palette


# As long as the release's, whose vis draws any label below the length: VOC's 255 comes out as (224, 224, 192).
# The last is ours.
COLOUR_MAPS: dict[str, Palette] = {
    "pascal": pascal_palette(512),
    "cityscapes": CITYSCAPES_COLOURS + ((0, 0, 0),) * (256 - len(CITYSCAPES_COLOURS)),
    "ade20k": ADE20K_COLOURS,
    "mapillary_vistas": MAPILLARY_VISTAS_COLOURS,
    "shapes": SHAPES_COLOURS,
}


def colour_map(name: str) -> Palette:
    """Returns the colours for `--colormap_type=name`; an unknown name is a DeepLabError that lists the nearest."""
    if name not in COLOUR_MAPS:
        raise unknown_name("colormap_type", name, COLOUR_MAPS)
    return COLOUR_MAPS[name]
