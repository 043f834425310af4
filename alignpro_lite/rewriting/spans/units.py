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
        esslöffel teelöffel baht dong leu lei kč korun koruna koruny ft forint eur usd
        godzina godziny godzin minut minuta minuty sekund sekunda sekundy dzień dnia dni tydzień
        tygodnie tygodni miesiąc miesiące miesięcy rok roku lata lat wiek wieku słowo słowa słów
        zdanie zdania zdań stron złoty złote złotych stycznia lutego marca kwietnia maja czerwca
        lipca sierpnia września października listopada grudnia
        timme timmar dygn dag dagar vecka veckor månad månader år århundrade ord meningar mening
        sidor sida timer dage dager uge uger uke uker måned måneder sætninger setninger øre
        januari februari maart mei juni augustus mars maj augusti marts oktober
        saat dakika saniye gün hafta ay yıl yüzyıl kelime cümle sayfa lira kuruş ocak şubat nisan
        mayıs haziran temmuz ağustos eylül ekim kasım aralık
        tunti tuntia tunnin minuutti minuuttia minuutin sekuntia päivä päivää viikko viikkoa
        kuukausi kuukautta vuosi vuotta sanaa lausetta sivua euroa kruunua tammikuuta helmikuuta
        maaliskuuta huhtikuuta toukokuuta kesäkuuta heinäkuuta elokuuta syyskuuta lokakuuta
        marraskuuta joulukuuta
        hodina hodiny hodin dny dnů týden týdny týdnů měsíc měsíce měsíců roky století
        slov věta věty vět stran ledna února března dubna května června července srpna září října
        listopadu prosince hodín deň týždeň týždňov mesiac mesiacov rokov
        óra órát perc percet másodperc napot hét hetet hónap év évet évszázad szó szót mondat
        mondatot oldal oldalt
        ώρα ώρες λεπτό λεπτά δευτερόλεπτα μέρα μέρες ημέρα ημέρες εβδομάδα εβδομάδες μήνας μήνες
        έτος έτη χρόνος χρόνια αιώνας λέξεις προτάσεις σελίδες ευρώ δολάρια χιλιόμετρα μέτρα κιλά
        γραμμάρια λίτρα
        година години годин хвилина хвилини хвилин секунд день дні днів тиждень тижні тижнів
        місяць місяці місяців рік роки років століття слово слова слів речення речень гривня гривні
        гривень часа дни години седмица седмици месеца години евро лева думи изречения
        times mal fois veces vezes volte раза раз
        daily weekly monthly yearly hourly annually täglich wöchentlich monatlich jährlich
        يناير فبراير مارس أبريل مايو يونيو يوليو أغسطس سبتمبر أكتوبر نوفمبر ديسمبر
        जनवरी फ़रवरी फरवरी मार्च अप्रैल मई जून जुलाई अगस्त सितंबर सितम्बर अक्टूबर नवंबर नवम्बर दिसंबर
        दिसम्बर
        jam menit detik hari minggu bulan tahun abad kata kalimat halaman rupiah
        giờ phút giây ngày tuần tháng năm từ câu trang đồng
        שעה שעות דקה דקות שנייה שניות יום ימים שבוע שבועות חודש חודשים שנה שנים מילה מילים משפטים
        עמודים שקל שקלים דולר אירו מטר קילומטר קילוגרם גרם
        ساعت دقیقه ثانیه روز هفته ماه سال قرن کلمه جمله صفحه متر کیلومتر کیلوگرم گرم لیتر تومان
        oră ore minute secunde zi zile săptămână săptămâni lună luni ani secol cuvinte propoziții
        """),
    ]
)
"""What may follow a number and belongs to it, in lower case."""

SCALES = frozenset(
    word_list("""
    hundred hundreds thousand thousands million millions billion billions trillion trillions
    quadrillion dozen dozens lakh lakhs crore crores half halves third thirds quarter quarters
    fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth
    tenths hundredth hundredths thousandths
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
    lusin صد هزار میلیون میلیارد نیم млн млрд тыс tsd
    """)
)
"""Numbers that multiply or divide another, in lower case."""

NUMBER_WORDS = SCALES | frozenset(
    word_list("""
    zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
    twice thrice eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth
    nineteenth twentieth thirtieth fortieth fiftieth sixtieth seventieth eightieth ninetieth zwei
    drei vier fünf sechs sieben acht neun zehn zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn
    achtzehn neunzehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig zéro vingt
    vingts deux trois quatre cinq sept huit onze douze treize quatorze dix quinze seize vingt trente
    quarante cinquante soixante cero dos tres cuatro cinco seis siete ocho nueve diez doce trece
    catorce quince veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa cien ciento
    doscientos quinientos tre quattro cinque sette otto nove dieci undici dodici tredici quattordici
    quindici venti trenta quaranta cinquanta sessanta settanta ottanta novanta dois duas três quatro
    sete oito dez doze treze quinze vinte trinta quarenta cinquenta oitenta cem twee drie vijf zes
    zeven negen tien twaalf twintig dertig två fyra sju åtta nio tio elva tolv femton tjugo trettio
    fyrtio femtio seks syv sju otte åtte elleve tolv tyve femten femti dwa dwie trzy cztery pięć
    sześć siedem osiem dziewięć dziesięć dwanaście dwadzieścia trzydzieści dvě dva tři čtyři pět
    šest sedm osm devět deset dvanáct dvacet třicet iki üç dört beş altı yedi sekiz dokuz yirmi otuz
    kırk elli kaksi kolme neljä viisi kuusi seitsemän kahdeksan yhdeksän kymmenen kaksikymmentä két
    kettő három négy öt hét nyolc kilenc tíz húsz harminc doi două trei patru cinci șase șapte zece
    douăzeci δύο δυο τρία τρεις τέσσερα πέντε έξι επτά εφτά οκτώ οχτώ εννέα δέκα δώδεκα είκοσι
    τριάντα дві чотири шість сім вісім десять двадцять тридцять שניים שתיים שני שלוש שלושה ארבע
    ארבעה חמש חמישה שש שבע שמונה תשע עשר עשרה עשרים bốn sáu bảy tám chín mười dua tiga empat lima
    enam tujuh delapan sembilan sepuluh puluh belas دو سه چهار پنج شش هفت هشت بیست ноль два две три
    четыре пять шесть семь восемь девять десять двенадцать двадцать тридцать сорок пятьдесят
    шестьдесят семьдесят восемьдесят девяносто двух трёх трех четырёх четырех пяти шести семи восьми
    девяти десяти двадцати тридцати пятью шестью одиннадцать тринадцать четырнадцать пятнадцать
    шестнадцать семнадцать восемнадцать девятнадцать двое трое четверо сто двести триста пятьсот
    اثنان ثلاثة ثلاث أربعة أربع خمسة خمس ستة ست سبعة سبع ثمانية تسعة عشرة عشرون عشرين ثلاثون ثلاثين
    أربعون أربعين خمسون خمسين ستون ستين سبعون سبعين ثمانون ثمانين تسعون تسعين اثنين مئتان مئتين दो
    तीन चार पाँच पांच छह सात आठ दस बीस पचास ग्यारह बारह तेरह चौदह पंद्रह सोलह सत्रह अठारह उन्नीस
    इक्कीस बाईस तेईस चौबीस पच्चीस छब्बीस सत्ताईस अट्ठाईस उनतीस तीस चालीस साठ सत्तर अस्सी नब्बे
    altmış yetmiş seksen doksan jedenaście trzynaście czternaście piętnaście szesnaście siedemnaście
    osiemnaście dziewiętnaście czterdzieści pięćdziesiąt sześćdziesiąt siedemdziesiąt osiemdziesiąt
    dziewięćdziesiąt dwieście trzysta pięćset dwóch trzech czterech pięciu sześciu siedmiu ośmiu
    dziewięciu dziesięciu dwudziestu trzydziestu jedenáct třináct čtrnáct patnáct šestnáct sedmnáct
    osmnáct devatenáct čtyřicet padesát šedesát sedmdesát osmdesát devadesát σαράντα πενήντα εξήντα
    εβδομήντα ογδόντα ενενήντα έντεκα одинадцять дванадцять тринадцять чотирнадцять шістнадцять
    сімнадцять вісімнадцять шістдесят сімдесят вісімдесят двох трьох чотирьох עשרים שלושים ארבעים
    חמישים שישים שבעים שמונים תשעים یازده دوازده سیزده چهارده پانزده شانزده هفده هجده نوزده سی چهل
    پنجاه شصت هفتاد هشتاد نود dezasseis dezesseis dezassete dezessete dezoito dezenove dezanove
    sessenta noventa duzentos trezentos tretton fjorton femton sexton sjutton arton nitton treizeci
    patruzeci cincizeci
    elf twenties thirties forties fifties sixties seventies eighties nineties dizaine dizaines
    vingtaine trentaine quinzaine centaine centaines septante huitante nonante mezza mezzo yüz
    seratus seribu ثماني ثمان تسع عشر تسعون تسعين دویست سیصد چهارصد پانصد ششصد هفتصد هشتصد نهصد
    полтора полторы डेढ़ ढाई इकतीस बत्तीस तैंतीस चौंतीस पैंतीस छत्तीस सैंतीस अड़तीस उनतालीस इकतालीस बयालीस
    तैंतालीस चवालीस पैंतालीस छियालीस सैंतालीस अड़तालीस उनचास पचपन पैंसठ पचहत्तर पचासी पचानवे निन्यानवे
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
MINUS = frozenset(word_list("minus negative moins menos meno минус мінус eksi miinus mínusz"))
"""What stands before a number and turns its sign, in lower case."""
LETTER_SCALES = frozenset(word_list("k m b t bn mn tn mio mrd"))
"""Scales that are written at the digits, in lower case: 3M euros, 5k dollars."""
LABELS = frozenset(word_list("no nr nº rs kr chf rm"))
"""What else stands before a number: No. 5, Rs. 500."""
NUMBERED = frozenset(
    word_list(
        "war part chapter section act book type phase stage level grade class volume unit kapitel"
    )
)
"""What stands before a Roman numeral, also one of a single letter: World War I."""

_DUTCH_TENS = "(?:twin|der|veer|vijf|zes|zeven|tach|negen)tig"
_DUTCH_DIGIT = "(?:een|één|twee|drie|vier|vijf|zes|zeven|acht|negen)"
ONE_WORD_NUMBER = re.compile(
    "(?:und|ein|zwei|drei|vier|fünf|sechs?|sieben|sieb|acht|neun|zehn|elf|zwölf|zwan|zig|ßig"
    "|hundert|tausend){2,}"
    f"|(?:{_DUTCH_DIGIT}[eë]n)?{_DUTCH_TENS}|(?:der|veer|vijf|zes|zeven|acht|negen)tien"
    "|(?:venti?|trenta?|quaranta?|cinquanta?|sessanta?|settanta?|ottanta?|novanta?|cento|mille"
    "|mila|uno?|due|tr[eé]|quattro|cinque|sei|sette|otto|nove){2,}"
    "|(?:dieci|veinti)(?:s[eé]is|siete|ocho|nueve|un[oa]?|ún|d[oó]s|tr[eé]s|cuatro|cinco)"
    "|(?:zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|hundert|tausend)(?:mal|fach|einhalb)"
    "|anderthalbe?|(?:two|three|four|five|six|seven|eight|nine|ten|hundred|thousand)fold"
    f"|{_DUTCH_DIGIT}?(?:honderd|duizend)"
    "|(?:dos|tres|cuatro|seis|sete|ocho|nove)cient[oa]s|quinient[oa]s"
    "|(?:quinh|duz|trez|quatroc|seisc|setec|oitoc|novec)ent[oa]s"
    "|(?:två|tre|fyra|fem|sex|sju|åtta|nio)hundra"
    "|(?:двух|тр[её]х|четыр[её]х|пяти|шести|семи|восьми|девяти)(?:сот|стам|стах)"
    "|четыреста|(?:пят|шест|сем|восем|девят)ь(?:сот|десят|ю|юдесятью)|(?:пяти|шести|семи|восьми)десяти"
    "|(?:один|две|три|четыр|пят|шест|сем|восем|девят)надцать?ю?"
    "|و(?:عشر|ثلاث|أربع|خمس|ست|سبع|ثمان|تسع)[وي]ن"
    "|(?:ثلاث|أربع|خمس|ست|سبع|ثمان|ثماني|تسع)(?:مئة|مائة)|(?:مئت|مائت|ألف)(?:ان|ين|ي)"
    "|(?:δια|τρια|τετρα|πεντα|εξα|επτα|εφτα|οκτα|οχτα|εννια)κόσι(?:οι|ες|α)"
    "|(?:tjugo|trettio|fyrtio|femtio|sextio|sjuttio|åttio|nittio)"
    "(?:ett|en|två|tre|fyra|fem|sex|sju|åtta|nio)?"
    "|(?:tjue|tretti|førti|femti|seksti|sytti|åtti|nitti)(?:en|to|tre|fire|fem|seks|sju|åtte|ni)?"
    "|(?:en|to|tre|fire|fem|seks|syv|otte|ni)og(?:tyve|tredive|fyrre|tres|firs|halv[a-z]{4,5})"
    "|tredive|fyrre|halvtreds|halvfjerds|halvfems"
    "|(?:yksi|kaksi|kolme|neljä|viisi|kuusi|seitsemän|kahdeksan|yhdeksän|kymmentä|toista|sataa?"
    "|tuhat|tuhatta){2,}"
    "|(?:egy|két|kettő|három|négy|öt|hat|hét|nyolc|kilenc|tizen|huszon|harminc|negyven|ötven"
    "|hatvan|hetven|nyolcvan|kilencven|száz|ezer){2,}"
)
"""Numbers that many languages write as one word: dreiundzwanzig, ventuno, tjugotre, satakaksi."""

_ACRONYM = re.compile(
    "(?i:tv|js|sql|html|css|php|xml|json|dna|rna|cv|us|usa|uk|eu|nba|nfl|nhl|mlb|pdf|http|api|url"
    "|csv|gpt|llm|nlp|npc|dvd|vip|vr|ai|sms|usb|ceo|phd|mvp|jpg|png|gif|ngo)s?"
)
"""What people count things of and name in capitals: 5 SQL questions."""
_NO_VOWEL = re.compile(r"(?i)(?!(?:vs|mr|mrs|dr|x)$)[b-df-hj-np-tv-xzµμΩ]{1,5}")
_CAPITALS = re.compile(r"[A-Z]{2,5}|[a-zµμ]{1,3}[A-Z][A-Za-z]{0,3}|[ΩJKLNVWATΩ]")
_SYMBOL = re.compile(r"[%‰‱°℃℉º′″€$£¥₹₽₩₪₫฿₺₴¢]|[°º][CFKcf]")
_PARTS = re.compile(r"[/·⋅*²³⁻¹-]+|\^?-?\d+$")


@lru_cache(maxsize=4096)
def is_unit(word: str) -> bool:
    """Whether a word is a unit: listed, a symbol, an abbreviation such as kWh, or made of such."""
    if word.lower().rstrip(".") in UNITS or _SYMBOL.fullmatch(word):
        return True
    if word.isalpha():
        return not _ACRONYM.fullmatch(word) and bool(
            _NO_VOWEL.fullmatch(word) or _CAPITALS.fullmatch(word)
        )
    parts = [part for part in _PARTS.split(word) if part]
    if word[0].isdecimal() or not parts or parts == [word]:
        return False
    return word[-1].isdecimal() <= word[0].isalpha() and all(map(is_unit, parts))


def uncapitalised(word: str) -> str:
    """A listed word in small letters: "Minutes" and "MINUTES", but not "mPa" and "MPa"."""
    small = word.lower()
    is_plain = word in (small, small.capitalize(), small.upper())
    is_listed = small in UNITS or small in NUMBER_WORDS or small in ONE or small in MINUS
    return small if is_plain and (is_listed or ONE_WORD_NUMBER.fullmatch(small)) else word


_THAI = "กิโลเมตร|เมตร|เซนติเมตร|กิโลกรัม|กรัม|บาท|ชั่วโมง|นาที|วินาที|สัปดาห์|เดือน|วัน|ปี|เปอร์เซ็นต์"
_NAMED = (
    "平方公里|平方千米|平方米|立方米|公里|公斤|公尺|公分|公顷|公升|千米|千克|厘米|毫米|毫升|英里|英尺|英寸|摄氏度|华氏度|百分点"
    "|分钟|小时|星期|礼拜|个月|個月|年代|世纪|美元|欧元|日元|英镑|人民币|港币|句话|段落|个字|个词"
    "|ヶ月|か月|カ月|ヵ月|時間|分間|秒間|週間|年間|日間|世紀|文字|単語|[ァ-ヴー]+"
    "|킬로미터|센티미터|밀리미터|미터|킬로그램|그램|리터|시간|퍼센트|개월|주일|세기|문장|단어|글자|달러|유로"
    f"|[㌀-㏿]|{_THAI}"
)
_SCALE = "(?:[十百千万萬亿億兆억만]|ล้าน|พัน|ร้อย|หมื่น|แสน)"
_COUNTERS = (
    "个個句字词詞段章条條点點天年月日周週时時分秒元円圆圓块塊岁歳人名位次回本冊册台枚"
    "杯只隻种種倍行页頁つ步件项項度号號期届成折部首篇封道款张張支类類组組层層棵幅场場座辆輛匹头頭双雙碗"
    "片斤勺克米升份批门門则則集级級社案例曲割"
)
_KOREAN_COUNTERS = "번째|자|명|개|살|원|번|권|마리|대|장|병|잔|시|분|초|일|월|년|주|세기|가지|배|줄"
_JOINS = (
    "和与與跟及到至的是在比哪有想要会會加减減乘除等于於とのはがをでにへやもたか"
    "은는이가을를의에도와과"
)
"""Characters that stand between a number and another word."""
UNSPACED_UNIT = re.compile(f"{_SCALE}*(?:{_NAMED}|[％‰℃]|(?=\\w)(?![{_JOINS}])[{UNSPACED}])?半?")
"""What follows digits in a script without spaces: what is listed, or one character."""
SPACED_UNIT = re.compile(
    f" (?:{_SCALE}+(?:{_NAMED})?|{_NAMED}|(?:{_KOREAN_COUNTERS})(?![가-힣]{{2}}))"
)
"""Likewise after a space."""
_BEFORE = (
    "(?:负|負|マイナス|プラス|[￥＄]|午前|午後|上午|下午|凌晨|早上|中午|傍晚|晚上|零下|公元前|紀元前|令和|平成|昭和"
    "|오전|오후|기원전|영하) ?"
)
UNSPACED_BEFORE = re.compile(f"{_BEFORE}$")
"""What stands before a number in a script without spaces and belongs to it: 下午3点."""
_NUMERAL = "[〇零一二三四五六七八九十百千万萬亿億兆两兩半壹贰貳叁參肆伍陆陸柒捌玖拾佰仟]"
_CHINESE = (
    # Words that are no numbers: in case, by all means, very.
    "(?!万一|萬一|千万(?:不|别|別|要)|十分(?![钟鐘の間间以之]))"
    f"(?:第|{_BEFORE})?(?:{_NUMERAL}+(?:分之|分の){_NUMERAL}+"
    f"|{_NUMERAL}+[点點]{_NUMERAL}+(?:{_NAMED}|[{_COUNTERS}])?"
    f"|(?:{_NUMERAL}+[到至~～])?{_NUMERAL}+(?:{_NAMED}|[{_COUNTERS}])半?|{_NUMERAL}{{2,}})"
    f"|第{_NUMERAL}+|{_NUMERAL}[乘加减減除]以?{_NUMERAL}"
    "|(?:ふた|みっ|よっ|いつ|むっ|なな|やっ|ここの)つ"
    "|(?:星期|礼拜|禮拜|周|週)[一二三四五六日天]"
)
# Numbers in Korean and Thai are also syllables of words: they count only before a unit.
_KOREAN = (
    "(?<![가-힣])(?:"
    "(?:(?:열|스물|서른|마흔|쉰|예순)?(?:두|세|네|다섯|여섯|일곱|여덟|아홉)|열|스무|서른|마흔|쉰) ?"
    "|[일이삼사오육칠팔구십백천만억]*[십백천만억][일이삼사오육칠팔구]? "
    "|첫 ?(?=번째)"
    f")(?:{_KOREAN_COUNTERS}|{_NAMED})"
)
_THAI_NUMBER = (
    "(?:หนึ่ง|สอง|สาม|สี่|ห้า|หก|เจ็ด|แปด|เก้า|สิบ|ยี่|เอ็ด|ร้อย|พัน|หมื่น|แสน|ล้าน){1,12}+ ?"
    f"(?:{_THAI}|คน|ข้อ|คำ|ครั้ง)"
)
UNSPACED_NUMBER = re.compile(f"{_CHINESE}|{_KOREAN}|{_THAI_NUMBER}")
"""A number in characters or words of a script without spaces; a single one only before a unit."""
