"""Words that make a number what it is: units, scales, months, and numbers in words.

The lists are closed. What they lack costs protection of a rare unit, never a wrong refusal.
"""

from __future__ import annotations

import re
from functools import lru_cache

from alignpro_lite.rewriting.scripts import UNSPACED, word_list

_PREFIXES = ("", *word_list("kilo centi milli micro nano deci hecto mega giga tera peta"))
_BASES = word_list(
    """
    meter meters metre metres gram grams gramme grammes liter liters litre litres watt watts volt
    volts joule joules hertz pascal pascals newton newtons ampere amperes amp amps ohm ohms byte
    bytes bit bits pixel pixels ton tons tonne tonnes calorie calories second seconds mètre
    mètres octet octets gramm metro metros litro litros gramo gramos grama gramas metri litri
    grammi parsec parsecs bar bars mole moles watt-hours
    """
)
UNITS = frozenset(
    [
        *(prefix + base for prefix in _PREFIXES for base in _BASES),
        *word_list("""
        percent per-cent percentage prozent procent por-ciento per-cento ciento cento cent
        процент процента процентов degree degrees celsius fahrenheit kelvin grad degrés grados
        gradi graus mile miles mi yard yards yd feet foot ft inch inches fathom fathoms furlong
        furlongs knot knots league leagues acre acres hectare hectares ha square sq cubic cu
        fluid fl nautical metric ounce ounces oz pound pounds lb lbs stone pint pints quart
        quarts gallon gallons gal cup cups teaspoon teaspoons tsp tablespoon tablespoons tbsp
        pinch barrel barrels bushel carat carats atm pa kpa mpa hpa psi bar torr lux lumen lumens
        candela decibel decibels ppm mol cal kcal tesla gauss sievert horsepower hp rpm light
        light-year light-years lightyears au sec secs min mins hour hours hr hrs day days week
        weeks fortnight fortnights month months year years yr yrs decade decades century
        centuries millennium millennia quarter quarters minute minutes minuten noon midnight
        o'clock dollar dollars cents euro euros penny pence yen yuan rupee rupees peso pesos
        franc francs rouble roubles ruble rubles won reais krone kroner krona kronor zloty pfund
        bucks quid word words sentence sentences paragraph paragraphs character characters letter
        letters line lines page pages chapter chapters verse verses stanza stanzas token tokens
        syllable syllables digit digits fold star stars am a.m pm p.m kilometer meter zentimeter
        millimeter quadratmeter kubikmeter liter gramm kilogramm kilo kilos pfund tonne tonnen
        stunde stunden sekunde sekunden tag tage tagen woche wochen monat monate monaten jahr
        jahre jahren jahrhundert jahrhunderte uhr wort wörter wörtern worte worten satz sätze
        sätzen zeile zeilen seite seiten absatz absätze absätzen zeichen kilomètre kilomètres
        centimètre centimètres heure heures jour jours semaine semaines mois ans année années
        siècle siècles mot mots phrase phrases ligne lignes paragraphe paragraphes caractères
        livre livres kilómetro kilómetros kilogramo kilogramos hora horas minuto minutos segundo
        segundos día días semana semanas mes meses año años siglo siglos palabra palabras frase
        frases oración oraciones párrafo párrafos línea líneas página páginas dólar dólares libra
        libras chilometro chilometri chilogrammi chilo chili ore ora minuti secondi giorno giorni
        settimana settimane mese mesi anno anni parola parole frasi riga righe pagina pagine
        paragrafo paragrafi quilômetro quilômetros quilograma quilogramas dia dias mês ano anos
        palavra palavras linha linhas parágrafo parágrafos uur uren dag dagen week weken maand
        maanden jaar jaren woorden zinnen alinea's км м см мм кг г л ч с мин сек руб км/ч тонн
        метр метра метров километр километра километров грамм граммов литр литра литров час часа
        часов минута минуты минут секунд день дня дней неделя недели недель месяц месяца месяцев
        год года лет век рубль рубля рублей долларов евро слово слова слов предложение
        предложения предложений строк страниц абзац абзаца абзацев градусов كم م سم مم كغ كجم غ
        لتر متر كيلومتر كيلو دقيقة دقائق ساعة ساعات يوم أيام أسبوع أسابيع شهر أشهر سنة سنوات عام
        كلمة كلمات جملة جمل دولار يورو ريال درهم درجة بالمئة सेमी किमी किलो मीटर किलोमीटर ग्राम
        किलोग्राम लीटर घंटे घंटा मिनट सेकंड दिन सप्ताह महीने साल वर्ष रुपये रुपए शब्द शब्दों
        वाक्य वाक्यों प्रतिशत डिग्री january february march april june july august september
        october november december jan feb mar apr jun jul aug sep sept oct nov dec januar februar
        märz juni juli oktober dezember janvier février mars avril mai juin juillet août
        septembre octobre novembre décembre enero febrero marzo abril mayo junio julio agosto
        septiembre octubre noviembre diciembre gennaio febbraio aprile maggio giugno luglio
        settembre ottobre dicembre janeiro fevereiro março maio junho julho setembro outubro
        novembro dezembro января февраля марта апреля мая июня июля августа сентября октября
        ноября декабря
        """),
    ]
)
"""What may follow a number and belongs to it, in lower case."""

SCALES = frozenset(
    word_list("""
    hundred hundreds thousand thousands million millions billion billions trillion trillions
    quadrillion dozen dozens lakh lakhs crore crores half halves third thirds quarter quarters
    fourth fifth fifths sixth sixths seventh eighth eighths ninth tenth tenths hundredth
    thousandth mn bn tn mio mrd k hundert tausend million millionen milliarde milliarden billion
    billionen hälfte drittel viertel fünftel zehntel dutzend mille millier milliers millions
    milliard milliards douzaine moitié tiers quart quarts cientos mil miles millón millones billón
    billones docena mitad tercio cuarto cuartos mila milione milioni miliardo miliardi dozzina
    metà terzo milhar milhão milhões bilhão bilhões bilhões trilhão dúzia metade terço miljoen
    miljard тысяча тысячи тысяч миллион миллиона миллионов миллиард миллиарда миллиардов половина
    треть четверть مليون ملايين مليار ألف آلاف مئة مائة نصف ربع ثلث हज़ार हजार लाख करोड़ मिलियन सौ
    आधा hundra tusen miljon miljoner miljarder biljon hundre millioner milliarder tusind halv
    tiotal dussin dusin sto tysiąc tysiące tysięcy milion miliony milionów miliard miliardy
    miliardów połowa pół tisíc tisíce milionů miliarda miliard miliardu polovina milióny miliónov
    milyon milyar trilyon yarım düzine sata tuhat tuhatta miljoona miljoonaa miljardia miljardi
    puolet száz ezer millió milliárd sută sute mii milioane miliarde jumătate εκατό χίλια χιλιάδες
    εκατομμύριο εκατομμύρια δισεκατομμύριο δισεκατομμύρια μισό μισά тисяча тисячі тисяч мільйон
    мільйони мільйонів мільярд мільярди мільярдів половина хиляди милиона милиарда מאה אלף אלפים
    מיליון מיליארד חצי trăm nghìn ngàn triệu tỷ tỉ nửa ratus ribu juta miliar triliun setengah
    lusin صد هزار میلیون میلیارد نیم
    """)
)
"""Numbers that multiply or divide another, in lower case."""

NUMBER_WORDS = SCALES | frozenset(
    word_list("""
    zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
    twice thrice twentieth zwei drei vier fünf sechs sieben acht neun zehn zwölf dreizehn vierzehn
    fünfzehn sechzehn siebzehn achtzehn neunzehn zwanzig dreißig vierzig fünfzig sechzig siebzig
    achtzig neunzig zéro vingt vingts deux trois quatre cinq sept huit onze douze treize quatorze
    quinze seize vingt trente quarante cinquante soixante cero dos tres cuatro cinco seis siete
    ocho nueve diez doce trece catorce quince veinte treinta cuarenta cincuenta sesenta setenta
    ochenta noventa cien ciento doscientos quinientos tre quattro cinque sette otto nove dieci
    undici dodici tredici quattordici quindici venti trenta quaranta cinquanta sessanta settanta
    ottanta novanta dois duas três quatro sete oito dez doze treze quinze vinte trinta quarenta
    cinquenta oitenta cem twee drie vijf zes zeven negen tien twaalf twintig dertig två fyra sju
    åtta nio tio elva tolv femton tjugo trettio fyrtio femtio seks syv sju otte åtte elleve tolv
    tyve femten femti dwa dwie trzy cztery pięć sześć siedem osiem dziewięć dziesięć dwanaście
    dwadzieścia trzydzieści dvě dva tři čtyři pět šest sedm osm devět deset dvanáct dvacet třicet
    iki üç dört beş altı yedi sekiz dokuz yirmi otuz kırk elli kaksi kolme neljä viisi kuusi
    seitsemän kahdeksan yhdeksän kymmenen kaksikymmentä két kettő három négy öt hét nyolc kilenc
    tíz húsz harminc doi două trei patru cinci șase șapte zece douăzeci δύο δυο τρία τρεις τέσσερα
    πέντε έξι επτά εφτά οκτώ οχτώ εννέα δέκα δώδεκα είκοσι τριάντα дві чотири шість сім вісім
    десять двадцять тридцять שניים שתיים שני שלוש שלושה ארבע ארבעה חמש חמישה שש שבע שמונה תשע עשר
    עשרה עשרים bốn sáu bảy tám chín mười dua tiga empat lima enam tujuh delapan sembilan sepuluh
    puluh belas دو سه چهار پنج شش هفت هشت بیست ноль два две три четыре пять шесть семь восемь
    девять десять двенадцать двадцать тридцать сорок пятьдесят шестьдесят семьдесят восемьдесят
    девяносто сто двести триста пятьсот اثنان ثلاثة ثلاث أربعة أربع خمسة خمس ستة ست سبعة سبع
    ثمانية تسعة عشرة عشرون दो तीन चार पाँच पांच छह सात आठ दस बीस पचास
    """)
)
"""Numbers in words, in lower case; without those that mean more than a number, also in another
language: one, once, due, on, fire, hai."""

AFTER_ORDINAL = frozenset(
    word_list("januar februar märz april mai juni juli august september oktober november dezember")
)
"""What may follow a German ordinal with a full stop: 5. März."""

ONE = frozenset(word_list("one один одна одно"))
"""Numbers that mean more than a number: they count only before a unit or a scale."""

CONNECTIVES = frozenset(word_list("and a an und et y e i и"))
"""What may stand within a number: two and a half."""

OF = frozenset(word_list("per a an pro par por al pour of de di"))
"""What may stand within a unit: km per hour, per cent, 5 de marzo."""

MONTHS = frozenset(
    word_list("""
    january february march april may june july august september october november december jan feb
    mar apr jun jul aug sep sept oct nov dec
    """)
)
"""What stands before a day and belongs to it: March 5; it is capitalised in a text."""
LABELS = frozenset(word_list("no nr nº rs kr chf rm"))
"""What else stands before a number: No. 5, Rs. 500."""
NUMBERED = frozenset(
    word_list(
        "war part chapter section act book type phase stage level grade class volume unit kapitel"
    )
)
"""What stands before a Roman numeral, also one of a single letter: World War I."""

GERMAN_NUMBER = re.compile(
    "(?:und|ein|zwei|drei|vier|fünf|sechs?|sieben|sieb|acht|neun|zehn|elf|zwölf|zwan|zig|ßig"
    "|hundert|tausend){2,}"
)
"""Numbers that German writes as one word: dreiundzwanzig, fünfhundert."""

_NO_VOWEL = re.compile(r"(?i)(?!(?:vs|mr|mrs|dr|x)$)[b-df-hj-np-tv-xzµμΩ]{1,5}")
_CAPITALS = re.compile(r"[A-Z]{2,5}|[a-zµμ]{1,3}[A-Z][A-Za-z]{0,3}|[ΩJKLNVWATΩ]")
_SYMBOL = re.compile(r"[%‰‱°º′″€$£¥₹₽₩₪₫฿₺₴¢]|[°º][CFKcf]")
_PARTS = re.compile(r"[/·⋅*²³⁻¹-]+|\^?-?\d+$")


@lru_cache(maxsize=4096)
def is_unit(word: str) -> bool:
    """Whether a word is a unit: listed, a symbol, an abbreviation such as kWh, or made of such."""
    if word.lower().rstrip(".") in UNITS or _SYMBOL.fullmatch(word):
        return True
    if word.isalpha():
        return bool(_NO_VOWEL.fullmatch(word) or _CAPITALS.fullmatch(word))
    parts = [part for part in _PARTS.split(word) if part]
    if word[0].isdecimal() or not parts or parts == [word]:
        return False
    return word[-1].isdecimal() <= word[0].isalpha() and all(map(is_unit, parts))


_NAMED = (
    "平方公里|平方千米|平方米|立方米|公里|公斤|公尺|公分|公顷|公升|千米|千克|厘米|毫米|毫升|英里|英尺|英寸|摄氏度|华氏度|百分点"
    "|分钟|小时|星期|礼拜|个月|個月|年代|世纪|美元|欧元|日元|英镑|人民币|港币|句话|段落|个字|个词"
    "|ヶ月|か月|カ月|ヵ月|時間|分間|秒間|週間|年間|日間|世紀|文字|単語|[ァ-ヴー]+"
    "|킬로미터|센티미터|밀리미터|미터|킬로그램|그램|리터|시간|퍼센트|개월|주일|세기|문장|단어|글자|달러|유로"
    "|กิโลเมตร|เมตร|เซนติเมตร|กิโลกรัม|กรัม|บาท|ชั่วโมง|นาที|วินาที|สัปดาห์|เดือน|วัน|ปี|เปอร์เซ็นต์"
)
_SCALE = "(?:[十百千万萬亿億兆억만]|ล้าน|พัน|ร้อย|หมื่น|แสน)"
_COUNTERS = (
    "个個句字词詞段章条條点點天年月日周週时時分秒元円圆圓块塊岁歳人名位次回本冊册台枚"
    "杯只隻种種倍行页頁つ步件项項度号號期届"
)
UNSPACED_UNIT = re.compile(f"{_SCALE}*(?:{_NAMED}|(?=\\w)[{UNSPACED}])?")
"""What follows digits in a script without spaces: what is listed, or one character."""
SPACED_UNIT = re.compile(f" (?:{_SCALE}+(?:{_NAMED})?|{_NAMED})")
"""Likewise after a space."""
_NUMERAL = "[〇零一二三四五六七八九十百千万萬亿億兆两兩半]"
UNSPACED_NUMBER = re.compile(
    f"第?(?:{_NUMERAL}+分之{_NUMERAL}+|{_NUMERAL}+(?:[点點]{_NUMERAL}+)?(?:{_NAMED}|[{_COUNTERS}])"
    f"|{_NUMERAL}{{2,}})"
)
"""A number in Chinese characters; a single one only before a unit."""
