"""One frame of a family: a panel that says where in the trial we are, a grid below it, and a legend at the foot."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 480, 624
PANEL, MARGIN, FOOT = 112, 24, 52
GRID = WIDTH - 2 * MARGIN
SMOOTH = 2  # everything is drawn this many times larger, and shrunk at the end

INK, PAPER, FAINT, PANEL_PAPER = "#222222", "#ffffff", "#cfcfcf", "#f1f1ee"
EXPLORING, EXECUTING = "#0072b2", "#00734f"
GOLD = "#ffd84d"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#a84b8a")
PALE_COLOURS = ("#56b4e9", "#e69f00", "#8f8f8f", "#c9a27e")

Cell = tuple[int, int]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * SMOOTH)


class Frame:
    """
    A frame being drawn: a panel above, a legend below, and what is between them.

    :param width: in pixels
    :param height: in pixels
    """

    def __init__(self, width: int = WIDTH, height: int = HEIGHT) -> None:
        self.width, self.height = width, height
        self.image = Image.new("RGB", (width * SMOOTH, height * SMOOTH), PAPER)
        self.pen = ImageDraw.Draw(self.image)

    def panel(
        self, exploring: bool, steps_left: int, max_steps: int, caption: str, reward: float, total: float, task: str
    ) -> None:
        """
        The panel at the top.

        :param exploring: whether this is an exploration episode
        :param steps_left: steps left in it; 0 when it is over
        :param max_steps: steps that it could have had
        :param caption: where in the trial it stands, or nothing
        :param reward: reward of the last step
        :param total: return so far
        :param task: the problem and the instruction
        """
        self.pen.rectangle((0, 0, self.width * SMOOTH, PANEL * SMOOTH), PANEL_PAPER)
        phase = "EXPLORING" if exploring else "EXECUTING"
        end = MARGIN + 20 + self.pen.textlength(phase, _font(16)) / SMOOTH
        badge = EXPLORING if exploring else EXECUTING
        self.pen.rounded_rectangle((MARGIN * SMOOTH, 10 * SMOOTH, end * SMOOTH, 38 * SMOOTH), 6 * SMOOTH, badge)
        self.write(MARGIN + 10, 24, phase, 16, PAPER, "lm")
        self.write(end + 12, 24, caption, 16, INK, "lm")
        clock = f"step {max_steps - steps_left} of {max_steps}" if steps_left else "episode over"
        self.write(MARGIN, 60, f"{clock}     reward {reward:+.2f}     return so far {total:+.2f}", 16, INK, "lm")
        self.write(MARGIN, 86, task, 16, INK, "lm")

    def foot(self, lines: Sequence[str]) -> None:
        """
        The legend.

        :param lines: at most two lines
        """
        top = self.height - FOOT
        self.pen.rectangle((0, (top + 2) * SMOOTH, self.width * SMOOTH, self.height * SMOOTH), PAPER)
        for row, line in enumerate(lines):
            self.write(self.width / 2, top + 14 + 20 * row, line, 13, "#555555", "mm")

    def array(self) -> np.ndarray:
        """
        The finished frame.

        :return: (height, width, 3), uint8
        """
        return np.array(self.image.resize((self.width, self.height), Image.Resampling.LANCZOS))

    def write(self, x: float, y: float, text: str, size: int, colour: str = INK, anchor: str = "mm") -> None:
        """
        Text anywhere.

        :param x: in pixels, from the left
        :param y: in pixels, from the top
        :param text: what to write
        :param size: font size
        :param colour: its colour
        :param anchor: which point of the text lies there, as in Pillow: ``"mm"`` its middle
        """
        self.pen.text((x * SMOOTH, y * SMOOTH), text, colour, _font(size), anchor)


class Picture(Frame):
    """
    A frame with a grid. Cells are (x, y) with y upwards, like the families' own; sizes are fractions of a cell's side.

    :param columns: number of columns of the grid
    :param rows: number of rows of the grid
    :param coordinates: whether to write the coordinates along the edges
    """

    def __init__(self, columns: int, rows: int, coordinates: bool = True) -> None:
        super().__init__()
        self.side = GRID / max(columns, rows)
        self.left = (self.width - columns * self.side) / 2
        self.bottom = PANEL + 8 + GRID
        for x in range(columns):
            for y in range(rows):
                self.square((x, y), 1.0, PAPER, FAINT, corner=0)
        if coordinates:
            for x in range(columns):
                self.write(self.left + (x + 0.5) * self.side, self.bottom + 11, str(x), 12, "#888888", "mm")
            for y in range(rows):
                self.write(self.left - 12, self.bottom - (y + 0.5) * self.side, str(y), 12, "#888888", "mm")

    def box(self, cell: Cell, size: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> tuple[float, float, float, float]:
        """
        A square around a cell's middle.

        :param cell: the cell
        :param size: its side
        :param shift: how far from the cell's middle, right and up
        :return: left, top, right, bottom in pixels of the large image
        """
        x = self.left + (cell[0] + 0.5 + shift[0]) * self.side
        y = self.bottom - (cell[1] + 0.5 + shift[1]) * self.side
        half = size * self.side / 2
        return (x - half) * SMOOTH, (y - half) * SMOOTH, (x + half) * SMOOTH, (y + half) * SMOOTH

    def square(self, cell: Cell, size: float, fill: str | None, outline: str | None = None, corner: float = 0.18) -> None:
        """
        A square with round corners.

        :param cell: the cell
        :param size: its side
        :param fill: colour
        :param outline: colour of its edge
        :param corner: radius of the corners
        """
        self.pen.rounded_rectangle(self.box(cell, size), corner * self.side * SMOOTH, fill, outline, SMOOTH)

    def disc(
        self,
        cell: Cell,
        size: float,
        fill: str | None,
        outline: str | None = None,
        shift: tuple[float, float] = (0.0, 0.0),
        line: int = 1,
    ) -> None:
        """
        A disc.

        :param cell: the cell
        :param size: its diameter
        :param fill: colour
        :param outline: colour of its edge
        :param shift: how far from the cell's middle, right and up
        :param line: how thick the edge is, in pixels
        """
        self.pen.ellipse(self.box(cell, size, shift), fill, outline, line * SMOOTH)

    def hatch(self, cell: Cell, size: float) -> None:
        """
        White diagonal strokes over a cell.

        :param cell: the cell
        :param size: side of the square they fill
        """
        left, top, right, _ = self.box(cell, size)
        length, step = int(right - left), 7 * SMOOTH
        for at in range(step, 2 * length, step):
            low, high = max(0, at - length), min(at, length)
            self.pen.line((left + low, top + high, left + high, top + low), PAPER, 2 * SMOOTH)

    def label(self, cell: Cell, text: str, size: int = 14, colour: str = INK, shift: tuple[float, float] = (0.0, 0.0)) -> None:
        """
        Text in the middle of a cell.

        :param cell: the cell
        :param text: what to write
        :param size: font size
        :param colour: its colour
        :param shift: how far from the cell's middle, right and up
        """
        left, top, right, bottom = self.box(cell, 1.0, shift)
        self.write((left + right) / 2 / SMOOTH, (top + bottom) / 2 / SMOOTH, text, size, colour, "mm")

    def flag(self, cell: Cell) -> None:
        """
        The goal: a golden cell with a flag.

        :param cell: the cell
        """
        self.square(cell, 1.0, GOLD, INK, corner=0)
        left, top, right, bottom = self.box(cell, 0.64)
        pole = left + (right - left) * 0.2
        self.pen.line((pole, top, pole, bottom), INK, 3 * SMOOTH)
        self.pen.polygon([(pole, top), (right, top + (bottom - top) * 0.25), (pole, top + (bottom - top) * 0.5)], "#c1121f")

    def agent(self, cell: Cell, size: float = 0.46, shift: tuple[float, float] = (0.0, 0.0)) -> None:
        """
        The agent: a face with two eyes, small enough to leave its cell in view.

        :param cell: the cell it stands on
        :param size: its diameter
        :param shift: how far from the cell's middle, right and up
        """
        self.disc(cell, size + 0.08, PAPER, None, shift)
        self.disc(cell, size, INK, None, shift)
        for side in (-1, 1):
            self.disc(cell, size * 0.22, PAPER, None, (shift[0] + side * size * 0.2, shift[1] + size * 0.08))
