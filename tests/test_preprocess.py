"""Pre-processing: any file comes out as the same head in the same frame."""

import cv2
import numpy as np
import pytest
from PIL import Image

from training.data import DataError, preprocess
from training.data.head import find_head
from training.data.preprocess import Box, frame, place, to_gray

HEAD = (60, 40, 120, 160)  # left, top, width, height of the head that `scene` draws


def scene(background=0, size=(240, 240), brain=110, scalp=200, skull=10):
    """A head with scalp, dark skull, brain and two ventricles: uint8 (h, w)."""
    image = np.full(size, background, np.uint8)
    left, top, width, height = HEAD
    center = (left + width // 2, top + height // 2)
    for radii, brightness in (((60, 80), scalp), ((55, 75), skull), ((49, 69), brain)):
        cv2.ellipse(image, center, radii, 0, 0, 360, max(brightness, background), -1)
    for side in (-12, 12):
        cv2.ellipse(image, (center[0] + side, center[1]), (6, 25), 0, 0, 360, 30, -1)
    return image


def box_of(image):
    return np.array(cv2.boundingRect(find_head(image)[0]))


def assert_found(image, tolerance=5):
    assert np.abs(box_of(image) - HEAD).max() <= tolerance


def test_the_head_is_found_on_black():
    assert_found(scene())


def test_the_head_is_found_on_gray_with_noise():
    noise = np.random.default_rng(0).normal(0, 4, (240, 240))
    assert_found(np.clip(scene(background=60) + noise, 0, 255).astype(np.uint8))


def test_the_head_is_found_inside_huge_borders():
    for level in (0, 255):
        wide = np.pad(scene(), 300, constant_values=level)
        assert np.abs(box_of(wide) - (360, 340, 120, 160)).max() <= 10


def test_a_frame_and_text_are_not_the_head():
    image = scene()
    cv2.rectangle(image, (0, 0), (239, 239), 255, 4)
    cv2.putText(image, "R 12:30", (8, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 1)
    cv2.putText(image, "A", (215, 225), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 2)
    assert_found(image)
    framed = preprocess(image)
    assert not framed[:, :10].any() and not framed[:10, :].all(axis=0).any()


def test_text_that_touches_the_head_is_cut_off():
    image = scene()
    cv2.putText(image, "WWWW", (165, 120), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1)
    assert_found(image, tolerance=8)


def test_a_thin_scalp_around_a_dark_skull_belongs_to_the_head():
    assert_found(scene(scalp=160, skull=0))


def test_a_bright_lesion_does_not_hide_a_dark_brain():
    image = scene(brain=60, scalp=60)
    cv2.circle(image, (120, 120), 30, 255, -1)
    assert_found(image)


def test_a_head_on_white_is_found():
    white = np.full((240, 240), 250, np.uint8)
    cv2.ellipse(white, (120, 120), (60, 80), 0, 0, 360, 60, -1)
    assert_found(white)


@pytest.mark.parametrize("zoom", [0.5, 2, 5])
def test_size_and_field_of_view_leave_no_trace(zoom):
    plain = preprocess(scene()).astype(int)
    zoomed = cv2.resize(np.pad(scene(), ((7, 90), (60, 5))), None, fx=zoom, fy=zoom)
    assert np.abs(preprocess(zoomed) - plain).mean() < 7


def test_the_head_fills_nine_tenths_of_the_frame_in_the_middle_and_keeps_its_aspect():
    framed = preprocess(scene())
    left, top, width, height = cv2.boundingRect(cv2.findNonZero((framed > 20).astype(np.uint8)))
    assert abs(height - 115) <= 3  # 0.9 of 128
    assert abs(width / height - 0.75) < 0.03
    assert abs(2 * left + width - 128) <= 3 and abs(2 * top + height - 128) <= 3


def test_brightness_and_background_leave_no_trace():
    plain = preprocess(scene()).astype(int)
    dim = preprocess((scene() * 0.4 + 30).astype(np.uint8))
    assert np.abs(dim - plain).mean() < 3
    assert plain.max() == 255 and plain[0, 0] == dim[0, 0] == 0


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "CMYK", "1", "I", "I;16", "F"])
def test_every_mode_gives_the_same_head(mode):
    image = Image.fromarray(scene())
    if mode == "I;16":
        image = Image.fromarray(scene().astype(np.uint16) * 257)
    elif mode == "P":
        image = image.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)
    else:
        image = image.convert(mode)
    assert image.mode == mode
    assert np.abs(preprocess(image).astype(int) - preprocess(scene())).mean() < 40
    assert_found(to_gray(image))


def test_sixteen_bits_are_scaled_by_their_own_range():
    twelve_bits = scene().astype(np.uint16) * 16
    assert np.abs(preprocess(twelve_bits).astype(int) - preprocess(scene())).max() <= 8


def test_transparent_pixels_are_black():
    image = np.dstack([np.full((240, 240, 3), 255, np.uint8), scene()])
    assert np.array_equal(to_gray(image), scene())


def test_an_exif_rotation_is_undone():
    upright = Image.fromarray(scene())
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[274] = 6  # to be shown turned clockwise by 90 degrees
    assert np.array_equal(to_gray(turned), scene())


@pytest.mark.parametrize("shape", [(240, 240, 1), (240, 240, 3), (240, 240, 4)])
def test_arrays_with_channels_are_taken(shape):
    image = np.broadcast_to(scene()[..., None], shape).copy()
    if shape[2] == 4:
        image[..., 3] = 255
    assert np.array_equal(preprocess(image), preprocess(scene()))


@pytest.mark.parametrize("level", [0, 90, 255])
@pytest.mark.parametrize("method", ["head", "paper"])
def test_one_grey_value_is_refused(level, method):
    with pytest.raises(DataError, match=f"one grey value \\({level}\\)"):
        preprocess(np.full((50, 50), level, np.uint8), method)


def test_nothing_but_dust_is_refused():
    image = np.zeros((100, 100), np.uint8)
    image[50, 50] = 255
    with pytest.raises(DataError, match="nothing that stands out"):
        preprocess(image)


@pytest.mark.parametrize("shape", [(50,), (50, 50, 2), (0, 0), (1, 50)])
def test_what_is_no_image_is_refused_with_its_shape(shape):
    with pytest.raises(DataError, match="shape"):
        preprocess(np.zeros(shape, np.uint8))


def test_nan_is_refused():
    with pytest.raises(DataError, match="finite"):
        preprocess(np.full((50, 50), np.nan))


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(DataError, match="head, paper, got 'canny'"):
        preprocess(scene(), "canny")


def test_the_paper_s_margin_is_fifty_pixels_of_the_original():
    framed = frame(scene(), "paper")
    assert np.abs(np.array(framed.box[:4]) - HEAD).max() <= 6
    longer = max(framed.box.width, framed.box.height)
    assert framed.box.share == longer / (longer + 50)
    rows = np.flatnonzero((framed.image > 20).any(axis=1))
    assert abs(len(rows) - 128 * longer / (longer + 50)) <= 6


def test_the_paper_s_background_is_the_image_s_minimum():
    assert frame(scene(background=37), "paper").image[0, 0] == scene(background=37).min()


def test_the_paper_s_way_refuses_an_image_without_edges():
    gradient = np.tile(np.linspace(100, 110, 200).astype(np.uint8), (200, 1))
    with pytest.raises(DataError, match="no edges"):
        preprocess(gradient, "paper")


def test_a_mask_goes_the_way_of_its_image():
    mask = np.zeros((200, 200), np.uint8)
    mask[50:100, 20:70] = 255  # the upper left quarter of the box
    placed = place(mask, Box(20, 50, 100, 100, share=0.5)) > 127
    expected = np.zeros((128, 128), bool)
    expected[32:64, 32:64] = True
    assert np.array_equal(placed, expected)
