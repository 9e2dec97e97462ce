"""What every code in a run's rows means and what to do about it, in English and Chinese."""

from dataclasses import dataclass

from pipelines.codes import REASONS_CARRIED, REASONS_LEFT_OUT, RETRYABLE
from pipelines.report.texts import Text

_RETRY = Text("Try again: `ovsops retry OUT --code {code}`.", "重试：`ovsops retry OUT --code {code}`。")
_SOURCE = Text(
    "The same bytes fail again: fetch the image anew or take it out of the input.",
    "同样的字节会再次失败：请重新获取该图片，或将其移出输入。",
)
_PACK = Text("Pack the shard again, then run again.", "请重新打包该分片后再运行。")


@dataclass(frozen=True)
class CodeText:
    """A code explained."""

    meaning: Text
    way_out: Text


def _code(en: str, zh: str, way_out: Text) -> CodeText:
    return CodeText(Text(en, zh), way_out)


FAILURES: dict[str, CodeText] = {
    "E_TIMEOUT": _code("The image was not decoded in time.", "图片未在限定时间内解码完成。", _RETRY),
    "E_DECODER_CRASH": _code("The decoder crashed on it, twice.", "解码器在该图片上两次崩溃。", _RETRY),
    "E_MODEL": _code("A model failed on it, alone in its batch.", "模型单独处理该图片时仍然出错。", _RETRY),
    "E_STORAGE": _code("It could not be read from storage.", "无法从存储读取。", _RETRY),
    "E_EMPTY": _code("The file has no bytes.", "文件为空。", _SOURCE),
    "E_MAGIC": _code(
        "It is no JPEG, PNG or WebP, whatever its name says.",
        "内容不是 JPEG、PNG 或 WebP，无论扩展名是什么。",
        Text("Convert it to JPEG, PNG or WebP.", "请转换为 JPEG、PNG 或 WebP。"),
    ),
    "E_TOO_LARGE": _code(
        "It is over the cap on bytes, pixels or side.",
        "超过字节数、像素数或边长上限。",
        Text("Raise decode.* in the recipe, or scale it down.", "提高配方中的 decode.* 上限，或缩小图片。"),
    ),
    "E_TOO_COMPLEX": _code(
        "It is cut in more scans, segments or chunks than any honest image.",
        "扫描、段或数据块过多，不像正常图片。",
        Text(
            "Look at it: it may be made to exhaust decoders. Encode it anew.",
            "请检查：可能是用来耗尽解码器的恶意图片。可重新编码。",
        ),
    ),
    "E_BAD_HEADER": _code(
        "Its header says something that no image has.", "文件头内容不可能属于真实图片。", _SOURCE
    ),
    "E_UNSUPPORTED": _code(
        "A legal file of a kind that is not decoded (lossless or 12-bit JPEG).",
        "合法但不支持的格式（无损或 12 位 JPEG）。",
        Text("Encode it anew as ordinary JPEG, PNG or WebP.", "请重新编码为普通 JPEG、PNG 或 WebP。"),
    ),
    "E_UNSUPPORTED_IMAGE": _code(
        "The sample has only a picture of a kind that is not read (gif, tiff, heic, …).",
        "样本只有不支持的图片格式（gif、tiff、heic 等）。",
        Text("Convert it to JPEG, PNG or WebP.", "请转换为 JPEG、PNG 或 WebP。"),
    ),
    "E_TRUNCATED": _code("The image ends early.", "图片数据提前结束。", _SOURCE),
    "E_CORRUPT": _code("The image is whole but damaged.", "图片完整但已损坏。", _SOURCE),
    "E_MEMORY": _code(
        "Decoding needs more memory than a worker may have.",
        "解码所需内存超过工作进程上限。",
        Text("Raise decode.memory_bytes, or scale the image down.", "提高 decode.memory_bytes，或缩小图片。"),
    ),
    "E_DUPLICATE_KEY": _code(
        "The shard holds this image name twice; the first one was labelled.",
        "分片中该图片名出现两次；已标注第一个。",
        Text("Give samples different keys and pack again.", "请使用不同的键并重新打包。"),
    ),
    "E_SECOND_IMAGE": _code(
        "The sample has a second image; the first one was labelled.",
        "样本有第二张图片；已标注第一张。",
        Text(
            "If it is an annotation, name its field in reader.samples.ignored_fields.",
            "若它是标注图，请加入 reader.samples.ignored_fields。",
        ),
    ),
    "E_INTERLEAVED": _code("A sidecar came too long after its image.", "附属文件与其图片相距太远。", _PACK),
    "E_NO_IMAGE": _code("The sample has no image.", "样本没有图片。", _PACK),
    "E_NAME": _code(
        "The member's name cannot be a key.",
        "成员名不能作为键。",
        Text("Rename it and pack again.", "请改名后重新打包。"),
    ),
    "E_MEMBER_TOO_LARGE": _code(
        "The member claims more bytes than the reader takes.",
        "成员声明的字节数超过读取上限。",
        Text("Raise reader.tar.max_member_bytes.", "提高 reader.tar.max_member_bytes。"),
    ),
    "E_TRUNCATED_ARCHIVE": _code("The archive ends inside this image.", "归档在该图片中途结束。", _PACK),
    "E_SHARD_CHANGED": _code(
        "The shard changed while it was read.",
        "读取过程中分片发生变化。",
        Text("Run again when it is at rest.", "待其稳定后再次运行。"),
    ),
    "E_SHARD_MISSING": _code(
        "The shard is no longer among the inputs.",
        "该分片已不在输入中。",
        Text("Restore it, or leave its labels as they are.", "恢复该分片，或保留现有标注。"),
    ),
    "S_SMALL": _code(
        "Left out on purpose: a side is under batch.skip_under_side.",
        "有意跳过：边长小于 batch.skip_under_side。",
        Text("Lower that field in another run to label it.", "如需标注，请在新的运行中调低该字段。"),
    ),
}
"""Codes of images that failed or were skipped, and of shards that could not be read."""

UNKNOWN_CODE = CodeText(
    Text("A code that this report does not know.", "本报告未收录的代码。"),
    Text("Its message says more.", "请参阅其消息。"),
)

_REASONS_ZH = {
    "R_BOX_MASK": "掩码就是检测框本身：没有掩码来源。",
    "R_CAPPED": "图中区域数超过上限；这是保留的区域之一。",
    "R_CONTESTED": "互斥组中另一个名称几乎同样合适。",
    "R_FILLS_BOX": "掩码填满其紧框：直边物体，或框被当作掩码。",
    "R_FRAGMENTED": "掩码由许多碎块组成：多个物体，或被遮挡。",
    "R_HOLES_FILLED": "区域的孔洞已填充：包含其类别未赢得的像素。",
    "R_HOLLOW": "掩码只占紧框的一小部分：细、空心或分散。",
    "R_HUGE": "掩码几乎覆盖整张图片。",
    "R_ISLANDS_JOINED": "过小的碎块已并入最近的同类区域。",
    "R_LOW_AGREEMENT": "检测框与掩码紧框重叠很少。",
    "R_NO_ANSWER": "向接口询问后未得到可用回答：保持原样。",
    "R_NO_BOX": "分割器显示该物体，但没有检测框覆盖。",
    "R_NO_FEATURE": "该框在专家网格上没有面积：专家无意见。",
    "R_NO_MASK": "分割器在框内没有该类像素；此掩码为替代。",
    "R_RENAMED": "专家给出了与检测器不同的名称。",
    "R_SEGMENTERS_DISAGREE": "第二个分割器在此显示了别的内容。",
    "R_TINY": "掩码像素很少。",
    "R_TOUCHES_BORDER": "掩码触及图片边缘：物体可能延伸到画面外。",
    "R_ABSENT": "判定该类不在图中。",
    "R_DOUBLE": "更好的掩码覆盖了相同像素。",
    "R_LOST_EXCLUSIVE": "互斥组中另一名称更合适；保留为候选。",
    "R_LOW_SCORE": "综合各方意见后低于最低分数。",
    "R_NO_AREA": "框未覆盖任何像素。",
    "R_OVER_CAP": "图中更好的区域已达上限。",
    "R_TOO_SMALL": "小于最小尺寸。",
}

CARRIED: dict[str, Text] = {
    code: Text(meaning, _REASONS_ZH.get(code, meaning)) for code, meaning in REASONS_CARRIED.items()
}
"""Codes in `reason_codes`."""
LEFT_OUT: dict[str, Text] = {
    code: Text(meaning, _REASONS_ZH.get(code, meaning)) for code, meaning in REASONS_LEFT_OUT.items()
}
"""Codes in an image's notes: why detections have no record."""

NOTES: dict[str, Text] = {
    "N_16_BIT": Text("Had 16 bits a sample; rounded to 8.", "每通道 16 位；已舍入为 8 位。"),
    "N_ALPHA_ON_WHITE": Text("Was transparent and laid on white.", "有透明像素；已置于白底。"),
    "N_BEFORE_DAMAGE": Text("The last sample before the archive's damage.", "归档损坏处之前的最后一个样本。"),
    "N_CAPTION_CUT": Text("Its caption was cut to the cap.", "说明文字已按上限截断。"),
    "N_CMYK": Text("Was CMYK; taken as Adobe writes it.", "原为 CMYK；按 Adobe 方式转换。"),
    "N_EXIF_ORIENTATION": Text("Its EXIF turn is none of 1-8; not turned.", "EXIF 方向无效；未旋转。"),
    "N_EXIF_TOO_LARGE": Text("Its EXIF was over the cap; not turned.", "EXIF 超过上限；未旋转。"),
    "N_EXIF_UNREADABLE": Text("Its EXIF is broken; not turned.", "EXIF 已损坏；未旋转。"),
    "N_EXTRANEOUS_BYTES": Text(
        "Stray bytes before the end; every pixel is whole.", "结尾前有多余字节；像素完整。"
    ),
    "N_FIELD_TYPE": Text("A field of its JSON has another type.", "其 JSON 中有字段类型不符。"),
    "N_INTERLEAVED": Text("Its files do not lie side by side in the shard.", "其文件在分片中不相邻。"),
    "N_KEY_NOT_NFC": Text("Its key is not in Unicode form NFC.", "键不是 Unicode NFC 形式。"),
    "N_LENIENT_DECODER": Text("Only a decoder that hides damage reads it.", "只有会掩盖损坏的解码器能读取。"),
    "N_LICENSE_UNKNOWN": Text("Its licence is not a known one.", "许可证不在已知列表中。"),
    "N_NOT_ASKED": Text("More regions than are asked about.", "区域过多，部分未询问。"),
    "N_REDACTED": Text("Secrets were taken out of one or more of its fields.", "其字段中的机密信息已移除。"),
    "N_TRAILING_DATA": Text("Bytes behind its end were ignored.", "结尾之后的字节已忽略。"),
    "N_TRANSPARENT_COLOR_IGNORED": Text("One colour was transparent; it is kept.", "有一种透明色；已保留。"),
    "N_UNSUPPORTED": Text("No statement of a new caption was borne out.", "新说明中的陈述均未得到证实。"),
}
"""Notes of images that were labelled all the same."""


def failure_text(code: str) -> CodeText:
    """Meaning and way out of a failed or skipped image's code."""
    known = FAILURES.get(code, UNKNOWN_CODE)
    if code in RETRYABLE and code not in FAILURES:
        return CodeText(known.meaning, _RETRY)
    return known


def note_text(code: str) -> Text | None:
    """What a note says; None for one that is not known here."""
    return NOTES.get(code) or LEFT_OUT.get(code) or CARRIED.get(code)
