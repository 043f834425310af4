"""Numbers with their units, in digits and in words, and words with a sign of code in them."""

from __future__ import annotations

import pytest

from alignpro_lite.rewriting.spans import protect
from tests.support.changed_spans import require_noticed


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("\\\\srv\\sh are\\x", "\\\\srv\\sh bre\\x"),
        ("3 million people", "3 billion people"),
        ("½ cup of milk", "¼ cup of milk"),
        ("2½ cups", "2¼ cups"),
        ("1 000 km", "1 000 m"),
        ("1 000 km", "2 000 km"),
        ("1,000.50", "1,000.05"),
        ("1e-3", "1e-4"),
        ("5 %", "5 ‰"),
        ("€5", "$5"),
        ("5 °C", "5 °F"),
        ("10 km/h", "10 m/h"),
        ("twenty percent", "thirty percent"),
        ("two thirds", "three thirds"),
        ("USD 20", "EUR 20"),
        ("20 USD", "20 EUR"),
        ("5 dozen", "5 score"),
        ("3 Millionen", "3 Milliarden"),
        ("3 millions d'euros", "3 milliards d'euros"),
        ("3 миллиона", "3 миллиарда"),
        ("三百万", "三百亿"),
        ("3万", "3億"),
        ("3公里", "3公斤"),
        ("3亿元", "3万元"),
        ("５kg", "５g"),
        ("from 3 to 5", "from 5 to 3"),
        ("3 - 2", "3 + 2"),
        ("2 × 3", "2 ÷ 3"),
        ("March 5, 2024", "May 5, 2024"),
        ("5 March 2024", "5 May 2024"),
        ("5. März", "5. Mai"),
        ("el 5 de marzo", "el 5 de mayo"),
        ("10:30 am", "10:30 pm"),
        ("5 p.m.", "5 a.m."),
        ("World War II", "World War I"),
        ("World War I", "World War II"),
        ("Henry VIII", "Henry VII"),
        ("5th", "6th"),
        ("the third one", "the fourth one"),
        ("v1.2.3", "v1.2.4"),
        ("10–20 kg", "10–20 g"),
        ("6′2″", "6′3″"),
        ("5'10\" tall", "5'11\" tall"),
        ("50 mg/dL", "50 g/dL"),
        ("9.8 m/s²", "9.8 m/s³"),
        ("9.8 m/s^2", "9.8 m/s^3"),
        ("100 kWh", "100 MWh"),
        ("3 TB", "3 GB"),
        ("64 bit", "64 byte"),
        ("two and a half hours", "two and a half days"),
        ("one hour", "one day"),
        ("a dozen eggs", "a hundred eggs"),
        ("half a cup", "quarter a cup"),
        ("5 lakh", "5 crore"),
        ("Rs. 500", "Rs. 600"),
        ("₹500", "₹600"),
        ("5 square metres", "5 square feet"),
        ("3 light years", "3 years"),
        ("5 per cent", "5 per mille"),
        ("minus 5", "minus 6"),
        ("-5", "+5"),
        ("5 BC", "5 AD"),
        ("0x1F", "0x2F"),
        ("3/4", "4/3"),
        ("1:2", "2:1"),
        ("5 nautical miles", "5 miles"),
        ("10 tablespoons", "10 teaspoons"),
        ("fifty-five", "fifty-six"),
        ("1.5 Mrd", "1.5 Mio"),
        ("8 Gbit/s", "8 Mbit/s"),
        ("3 sq ft", "3 cu ft"),
        ("12 noon", "12 midnight"),
        ("15 กิโลเมตร", "15 เมตร"),
        ("3 ล้าน", "3 พัน"),
        ("5시간", "5분"),
        ("solve $x^2+1$", "solve $x^2-1$"),
        ("\\frac{a}{b}", "\\frac{a}{c}"),
        ("\\alpha", "\\beta"),
        ("%s and %d", "%s and %s"),
        ("$VAR", "$VAL"),
        ("deadbeef12", "deadbeef13"),
        ("snake_case", "snake_cast"),
        ("and/or", "and"),
        ("C#", "C++"),
        ("C++", "C"),
        ("__init__", "__main__"),
        ("%(name)s", "%(nom)s"),
        ("α → β", "α ← β"),
        ("~10 kg", "~10 g"),
        ("≈3", "≈4"),
        ("№ 5", "№ 6"),
        ("§ 5", "§ 6"),
        ("No. 5", "No. 6"),
        ("Article III", "Article IV"),
        ("5G", "4G"),
        ("COVID-19", "COVID-20"),
        ("1st", "2nd"),
        ("mid-1990s", "mid-1980s"),
        ("2020s", "2030s"),
        ("24/7", "24/6"),
        ("one third", "two thirds"),
        ("fünf Kilometer", "fünf Meter"),
        ("cinq minutes", "cinq heures"),
        ("veinte por ciento", "treinta por ciento"),
        ("пять минут", "пять часов"),
        ("zwei Drittel", "ein Drittel"),
        ("第三章", "第四章"),
        ("百分之五", "百分之六"),
        ("三句话", "五句话"),
        ("五分钟", "三分钟"),
        ("半年", "一年"),
        ("一个苹果", "两个苹果"),
        ("true/false?", "true/maybe?"),
        ("5 ft 10 in", "5 ft 11 in"),
        ("10 000,5 €", "10 000,6 €"),
        ("3.5M users", "3.5B users"),
        ("$3B", "$3M"),
        ("2^10", "2^11"),
        ("10⁻³", "10⁻⁴"),
        ("√2", "√3"),
        ("±5", "5"),
        ("<5", "<6"),
        ("5+", "6+"),
        ("12:30–14:00", "12:30–15:00"),
        ("2024-01-02", "2024-02-01"),
        ("2.1.2024", "1.2.2024"),
        ("7 p.m. to 9 p.m.", "7 p.m. to 9 a.m."),
        ("four score", "five score"),
        ("a couple thousand", "a couple million"),
        ("two-thirds", "two-fifths"),
        ("one in five", "one in six"),
        ("nineteen eighty-four", "nineteen eighty-five"),
        ("10-fold", "20-fold"),
        ("3x faster", "4x faster"),
        ("quatre-vingts", "quatre-vingt-dix"),
        ("dreiundzwanzig", "vierundzwanzig"),
        ("fünfhundert Euro", "sechshundert Euro"),
        ("half an hour", "half a minute"),
        ("hundred", "thousand"),
        ("zero", "one"),
        ("5 m²", "5 m³"),
        ("5 kg/m³", "5 g/m³"),
        ("5 ppm", "5 ppb"),
        ("1000 mAh", "1000 Ah"),
        ("5 USD/h", "5 EUR/h"),
        ("40 hours per week", "40 hours per month"),
        ("5 Pa·s", "5 Pa"),
        ("Ⅷ世", "Ⅸ世"),
        ("٣ ملايين", "٣ مليارات"),
        ("पाँच किलो", "दस किलो"),
        ("五百元", "五百円"),
        ("1億2千万円", "1億3千万円"),
        ("3人", "4人"),
        ("３時間", "３分間"),
        ("2 个小时", "3 个小时"),
        ("a*b", "a/b"),
        ("∑ x", "∏ x"),
        ("&nbsp; x", "&amp; x"),
        ("%NAME%", "%NOM%"),
        ("@{x}", "@{y}"),
        ("ISBN 978-3", "ISBN 978-4"),
        ("sha256:abc", "sha256:abd"),
        ("Det kostar tre miljoner kronor", "Det kostar tre miljarder kronor"),
        ("Kosztuje trzy miliony złotych", "Kosztuje trzy miliardy złotych"),
        ("Üç milyon lira eder", "Üç milyar lira eder"),
        ("Hinta on kolme miljoonaa euroa", "Hinta on kolme miljardia euroa"),
        ("Giá là 3 triệu đồng", "Giá là 3 tỷ đồng"),
        ("Harganya 3 juta rupiah", "Harganya 3 miliar rupiah"),
        ("המחיר הוא 3 מיליון שקל", "המחיר הוא 3 מיליארד שקל"),
        ("Κοστίζει 3 εκατομμύρια ευρώ", "Κοστίζει 3 δισεκατομμύρια ευρώ"),
        ("Ціна 3 мільйони гривень", "Ціна 3 мільярди гривень"),
        ("It costs CHF 5.– there", "It costs EUR 5.– there"),
        ("Rename camelCaseName", "Rename camelCasename"),
        ("What is std::vector?", "What is std::list?"),
    ],
)
def test_a_change_of_a_quantity_is_noticed(prompt, rewrite):
    """Regression: only a few quotes, plain URLs and a short list of units were known."""
    require_noticed(prompt, rewrite)


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("ราคา ๒๐ บาท", "ราคา ๓๐ บาท"),
        ("ວັນທີ ໑໒", "ວັນທີ ໑໓"),
        ("ថ្ងៃទី ១២", "ថ្ងៃទី ១៣"),
        ("နေ့ ၁၂", "နေ့ ၁၃"),
        ("choose ③", "choose ④"),
        ("③番", "④番"),
    ],
)
def test_a_change_of_digits_of_any_script_is_noticed(prompt, rewrite):
    """Regression: digits of Thai, Lao, Khmer and Burmese counted as letters that end a word, and
    circled ones as none, so that no number was found."""
    require_noticed(prompt, rewrite)


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("twenty-one pilots", "twenty-two pilots"),
        ("a ten-year-old", "a six-year-old"),
        ("the thirteenth floor", "the fourteenth floor"),
        ("the twenty-first", "the twenty-second"),
        ("one-and-a-half hours", "two-and-a-half hours"),
        ("World War One", "World War Two"),
        ("vingt-et-un ans", "vingt-deux ans"),
        ("soixante-dix pages", "soixante-quinze pages"),
        ("ventuno pagine", "ventidue pagine"),
        ("veintiuno", "veintidós"),
        ("drieëntwintig", "vierentwintig"),
        ("tjugotre", "tjugofyra"),
        ("enogtyve", "toogtyve"),
        ("viisikymmentä", "kuusikymmentä"),
        ("huszonhárom", "huszonnégy"),
        ("dwudziestu uczniów", "trzydziestu uczniów"),
        ("до пяти", "до шести"),
        ("لمدة عشرين يوما", "لمدة ثلاثين يوما"),
        ("ארבעים יום", "חמישים יום"),
        ("इक्कीस", "बाईस"),
        ("壹佰元", "贰佰元"),
        ("打八折", "打七折"),
        ("一点五", "一点六"),
        ("星期三见", "星期四见"),
        ("세 개만", "네 개만"),
        ("오천 원", "육천 원"),
        ("ใช้เวลาสามวัน", "ใช้เวลาสี่วัน"),
    ],
)
def test_a_change_of_a_number_in_words_is_noticed(prompt, rewrite):
    """Regression: of numbers that are compounds or inflected, most were not known as numbers."""
    require_noticed(prompt, rewrite)


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("minus 5 degrees", "plus 5 degrees"),
        ("below 5", "below minus 5"),
        ("3.5M euros", "3.5M dollars"),
        ("5kg per week", "5kg per day"),
        ("at 40° N", "at 40° S"),
        ("20 ℃", "20 ℉"),
        ("5 ㎏", "5 ㎎"),
        ("Mar. 5", "Apr. 5"),
        ("下午三点", "上午三点"),
        ("午前3時", "午後3時"),
        ("오후 3시", "오전 3시"),
        ("3 명", "3 개"),
        ("5 godzin", "5 minut"),
        ("5 timmar", "5 dagar"),
        ("5 gün", "5 saat"),
        ("5 tuntia", "5 päivää"),
        ("5 hodin", "5 minut"),
        ("5 órát", "5 percet"),
        ("5 ώρες", "5 λεπτά"),
        ("5 годин", "5 хвилин"),
        ("5 jam", "5 menit"),
        ("5 giờ", "5 phút"),
        ("5 שעות", "5 דקות"),
        ("5 ساعت", "5 دقیقه"),
        ("20 baht", "20 dong"),
    ],
)
def test_a_change_of_what_belongs_to_a_number_is_noticed(prompt, rewrite):
    """Regression: signs and halves of the day in words, what follows a unit at the digits, and
    everyday units of languages whose scales were known did not belong to their number."""
    require_noticed(prompt, rewrite)


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("ต้องห้ามอะไรบ้าง", "โปรดอธิบายว่าต้องห้ามอะไรบ้าง"),
        ("한 번 설명해줘", "자세히 설명해줘"),
        ("만일 비가 오면", "만일 비가 오면 어떻게 하나요"),
        ("Type one sentence", "Write one sentence"),
        ("Can I eat 5 a day?", "May I eat 5 a day?"),
        ("minus the noise", "without the noise"),
    ],
)
def test_words_that_only_look_like_numbers_may_change(prompt, rewrite):
    assert protect(prompt).broken_by(rewrite) == ()


@pytest.mark.parametrize(
    "rewrite", ["It is 115 km", "at 15 km/h", "1.15 km", "15 kmh", "15", "fifteen km", ""]
)
def test_a_number_is_kept_only_as_it_stands(rewrite):
    assert [span.text for span in protect("It is 15 km.").broken_by(rewrite)] == ["15 km"]


def test_a_number_in_code_does_not_stand_for_the_one_outside():
    """Regression: the 15 inside the code was counted instead of the lost one."""
    protected = protect("Use 15 and `ls 15`.")
    assert [span.text for span in protected.broken_by("Use `ls 15`.")] == ["15"]
