"""The colour maps of the release, as facts (its utils/get_dataset_colormap.py)."""

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
