"""Does a text ask for something? Imperatives, questions and wishes of many languages."""

from __future__ import annotations

import re

from alignpro_lite.rewriting.scripts import word_list

# Verbs of what an assistant is asked to do, not of what a reader is advised to.
_VERBS = (
    "|".join(
        word_list("""
    write explain describe list give tell provide summari[sz]e translate compare contrast discuss
    name identify suggest outline define generate create compose draft answer show help find
    calculate compute solve classify rewrite rephrase paraphrase edit convert analy[sz]e evaluate
    rank recommend propose design develop plan build code implement fix debug correct improve
    review critique rate judge determine decide choose select pick categori[sz]e sort order match
    fill complete finish continue extract detect highlight elaborate clarify expand shorten
    simplify illustrate demonstrate prove derive simulate pretend imagine act assume suppose
    predict estimate brainstorm share teach guide advise offer research investigate explore
    examine assess justify argue defend report state mention specify enumerate present prepare
    produce return output print remove replace change modify transform format organi[sz]e arrange
    invent devise formulate construct craft author count verify test validate say speak ask reply
    respond talk interpret reflect search recite quote cite spell assign label tag parse infer
    guess pitch play become turn combine merge split group insert add reverse repeat schedule look
    check proofread punctuate capitali[sz]e narrate retell recount characteri[sz]e differentiate
    distinguish relate connect apply perform execute run optimi[sz]e refactor annotate document
    rearrange take let introduce inquire send meet collect gather curate unpack delve dissect shed
    pen map interview roleplay
    """)
    )
    + r"|come up|think of|break down|walk me|use the|read (?:the|this)"
    + r"|make (?:an?|the|me|up|this|it|some|two|three|\d)"
)
_GERMAN = (
    "|".join(
        word_list(r"""
    erklär\w* beschreib\w* nenn\w* schreib\w* gib liste\w* fass\w* übersetz\w* vergleich\w*
    diskutier\w* erstell\w* erzähl\w* zeig\w* hilf finde\w* berechn\w* formulier\w* analysier\w*
    bewert\w* empfiehl schlag\w* definier\w* verfass\w* erläuter\w* schilder\w* skizzier\w*
    entwickl\w* entwirf such\w* untersuch\w* begründ\w* stell\w* mach\w* lies korrigier\w*
    verbesser\w* lös\w* plan\w* ordne\w* ergänz\w* sortier\w* prüf\w* identifizier\w*
    interpretier\w* bestimm\w* wähl\w* konvertier\w* gestalt\w* präsentier\w* wandle\w* sag
    führ\w* denk\w* klär\w* wie was warum wer wo wann wieso weshalb wessen welche[rsnm]? ist sind
    hat darf soll
    """)
    )
    + "|(?:geben|helfen|empfehlen|können|könnten) sie|(?:kannst|könntest) du|gibt es|muss ich"
)
_FRENCH = (
    "|".join(
        word_list(r"""
    expli(?:que|quez) veuillez décri[sv]\w* donne[zs]?(?:-moi)? écri[sv]\w* rédige\w* cite[zs]?
    résume\w* tradui\w* propose[zs]? crée[zs]? montre[zs]? aide[zs]?(?:-moi)? calcule[zs]?
    définis\w* dis dites raconte\w* détaille\w* élabore\w* présente\w* compare[zs]? suggère\w*
    suggérez indique\w* imagine[zs]? fourni\w* énumère\w* énumérez liste[zs]? analyse[zs]?
    compose[zs]? prépare[zs]? fais faites trouve[zs]? recommande[zs]? conseille[zs]? corrige[zs]?
    classe[zs]? développe[zs]? identifie[zs]? précise[zs]? comment pourquoi quoi quels? quelles?
    qui où quand combien qu'est-ce peux-tu pouvez-vous pourrais-tu pourriez-vous
    """)
    )
    + "|est-ce que|y a-t-il"
)
_SPANISH_AND_PORTUGUESE = (
    "|".join(
        word_list(r"""
    expl[ií]ca\w* explique\w* descr[ií]b\w+ descreva \w*[áéíóú]\w{1,4}me compón compon\w* componha
    descreva da dame dá dime diga diz escr[ií]b\w+ escreva enumer\w+ haz faça faz resum\w+
    traduc\w+ traduz\w* mencion\w+ sugier\w+ sugira crea crie redact\w+ redija proporciona elabora
    elabore detalla detalhe compara compare indica indique ofrece ofreça genera gere analiza
    analise desarrolla desenvolva prepara prepare calcula calcule recomienda recomende presenta
    apresente cuéntame cuenta conte muestra mostre forneça liste identifica identifique corrige
    corrija propón proponha clasifica classifique ayúdame ajude puedes puede podrías pode poderia
    cómo como qué que cuál\w* qual quais quién\w* quem dónde onde cuándo quando cuánt\w+ quant\w+
    existe hay
    """)
    )
    + "|o que|por qué|por que"
)
_ITALIAN = "|".join(
    word_list(r"""
    spiega\w* fornisci\w* suggerisci\w* proponi\w* crea illustra\w* indica\w* confronta\w*
    analizza\w* racconta\w* consiglia\w* componi redigi mostra\w* calcola\w* trova\w* correggi\w*
    prepara presenta\w* aiutami definisci\w* sviluppa\w* descriv\w+ dai dammi dimmi scriv\w+
    elenca\w* fai fammi riassum\w+ traduci\w* puoi può potresti cosa perché quale chi dove
    """)
)
_RUSSIAN = "|".join(
    word_list(r"""
    объясни\w* опиши\w* напиши\w* назови\w* расскажи\w* дай\w* перечисли\w* переведи\w* сравни\w*
    составь\w* приведи\w* предложи\w* подготовь\w* посоветуй\w* перескажи\w* представь\w*
    создай\w* сформулируй\w* найди\w* вычисли\w* реши\w* покажи\w* помоги\w* проанализируй\w*
    укажи\w* придумай\w* сочини\w* изложи\w* определи\w* можешь можете как\w* что почему кто где
    когда сколько зачем чем
    """)
)
_UNSPACED = (
    "请|請|解释|说明|描述|写|寫|列出|列举|列舉|给(?:出|我)|告诉|介绍|翻译|总结|比较|如何|怎么|怎样|什么|什麼|为什么|為什麼"
    "|哪|谁|多少|帮|分析|推荐|提供|提出|生成|创作|编写|撰写|制定|阐明|指出|评价|评估|探讨|创建|设计|简述|概述|阐述|论述|讨论"
    "|ください|下さい|教えて|説明|書いて|挙げ|まとめ|翻訳|何|なぜ|どう|どの|どこ|だれ|誰|いつ|ですか|ますか|なさい|せよ|述べよ|てほしい|てくれ"
    "|주세요|해줘|알려|무엇|어떻게|왜|누구|어디|설명|작성|하시오|해라|하라"
    "|اكتب|اشرح|ما |كيف|لماذا|هل |أين|من هو|متى|اذكر|لخص"
    "|ترجم|قدم|قارن|ألف|صمم|أنشئ|وضح|اقترح|عدد|أعط|ناقش|حلل"
    "|बताइए|बताओ|लिखिए|लिखें|समझाइए|क्या|कैसे|क्यों"
    "|कौन|कहाँ|कब|दीजिए|कीजिए|करें|बताएं|बताएँ|समझाएं|समझाएँ"
)
_AUXILIARY = "is|are|was|were|do|does|did|can|could|would|should|will|have|has|may|might|am"
_SENTENCE_START = r"(?:\A|[\n.!?:;(\"“'‘«>*•)\]-]\s{0,3})"
_INTRODUCED = r"(?:\A|[\n.!?]\s{0,3})[^,.!?\n]{1,150},\s{0,3}(?:(?:and|but|so|or) )?(?:then )?"
_ASKED = r"\b(?:please|kindly|(?:can|could|would|will|want|need|like) you(?: to)?) "
_FORMS = (
    rf"(?:{_SENTENCE_START}|{_INTRODUCED}|{_ASKED})(?:{_VERBS})\b",
    rf"{_SENTENCE_START}(?:(?:and|so|but|if so|if not|hey|hi),? )?"
    r"(?:what|how|why|who|whom|whose|which)(?:'s|’s)?\b",
    rf"{_SENTENCE_START}(?:in|for|to|at|on|by|with|from|of|about) (?:what|which|whom|whose)\b",
    rf"{_SENTENCE_START}(?:when|where)(?:'s|’s| (?:{_AUXILIARY}|had))\b",
    rf"{_INTRODUCED}(?:what|how|why)\b",
    rf"{_SENTENCE_START}(?:{_AUXILIARY}) \w+\b(?=[^.!\n]{{0,300}}(?:\?|\Z|\n))",
    r"\b(?:please|kindly)\b",
    r"\bi(?:'d| would)? (?:want|need|wish|am looking|am trying)\b|\bi['’]m (?:looking|trying)\b"
    r"|\bi(?:'d|’d| would) (?:like|love|appreciate)\b",
    r"\b(?:your|my|the) (?:task|job|goal|role|objective) is\b"
    r"|\byou are (?:an?|the|given|provided|asked|tasked)\b|\byou will be\b",
    rf"(?:\A|[\n.!?:;,\"„“»«¿¡]\s{{0,3}}|\b(?:bitte|und|y|et|e) )"
    rf"(?:{_GERMAN}|{_FRENCH}|{_SPANISH_AND_PORTUGUESE}|{_ITALIAN}|{_RUSSIAN})\b",
    r"\b(?:bitte|s'il (?:te|vous) plaît|por favor|per favore|пожалуйста"
    r"|ich (?:möchte|brauche|will|hätte)|je (?:veux|voudrais|cherche)|j'ai besoin"
    r"|quiero|necesito|quisiera|voglio|vorrei"
    r"|ho bisogno|quero|preciso|gostaria|хочу|нужн[оаы]?)\b",
    _UNSPACED,
)
_REQUEST = re.compile("(?i)" + "|".join(_FORMS))
_QUESTION = re.compile(r"[?？؟\u037e]|(?<=[\u0370-\u03ff\u1f00-\u1fff]);")
_SENTENCE_END = re.compile(r"(?<=[.!?。！？؟।])\s+|\n+|(?<=[。！？])")
_SENTENCES = 2
_LONGEST = 2000
"""Sentences and characters at either end of a text that are read."""

# Verbs that are also words of another language (English son, war, era and hat, German es) count
# only before an article or the like of their own.
_STATEMENT = re.compile(
    r"(?i)\b(?:is|are|was|were|has|have|had|means|refers|consists|contains|became|ist|sind|waren"
    r"|bedeutet|est|sont|était|fue|è|sono|é|são|foi|является|это"
    r"|(?:war|hat) (?:eine?[nrms]?|das|der|sehr)"
    r"|(?:es|son|era|eran) (?:el|la|lo|los|las|una?|unos|unas|muy|más|uma?))\b"
    r"|是|です|である|입니다"
)
_REASON = re.compile(
    r"(?i)\s*(?:(?:because|due to|weil|wegen|parce qu|à cause d|porque|debido a|perché|потому"
    r"|из-за)\b|因为|由于|なぜなら|왜냐하면|[-−]?[\d.,]+\W*\Z)"
)
_DIRECTION = re.compile(
    r"(?i)(?:\A|[\n.!?:;,(\"-]\s{0,3}|\b(?:and|but|or|so|then|to|not) )"
    r"(?:use|using|include|including|be|keep|focus|avoid|make|mention|consider|start|begin|end|add"
    r"|ensure|remember|limit|do|don't|check|note|cover|address|highlight|structure|stick|think|stay"
    r"|cite|quote|try|follow|obey|observe|put|wrap|separate"
    r"|beachte\w*|halte\w*|befolge\w*|respect(?:e[zs]?|ons)|respet[ae]\w*|cumpl[ae]\w*|sig[au]\w*"
    r"|respeite\w*|cumpra\w*|rispett[ai]\w*|seguire|segui|соблюда\w*|придерживай\w*|следуй\w*)\b"
    r"|\b(?:should|must|need|needs|ought|has to|have to|shall|answers?|response|reply|essay"
    r"|text|sollte\w*|muss|soll|antworte?|doit|devrait|réponse|debe|debería|respuesta|deve|dovrebbe"
    r"|risposta|resposta|должен|должна|должно|следует|ответ\w*)\b"
    r"|应该|必须|需要|回答|遵守|べき|ください|答え|대답|지켜|पालन"
)


def asks_as_known(text: str) -> bool:
    """Whether a text asks in a language that is listed here, in its first or last sentences."""
    return bool(_REQUEST.search(_ends_of(text)))


def asks(text: str) -> bool:
    """Whether a text asks in a language that is listed, or has a question mark.

    Only its first and last sentences are read: the others may be what it is about.
    """
    ends = _ends_of(text)
    return bool(_QUESTION.search(ends) or _REQUEST.search(ends))


def only_states(text: str) -> bool:
    """Whether a text says what is so, or why, and neither asks nor directs an answer."""
    states = _STATEMENT.search(text) or _REASON.match(text)
    return bool(states) and not (asks(text) or _DIRECTION.search(text))


def _ends_of(text: str) -> str:
    if len(text) > 2 * _LONGEST:
        text = f"{text[:_LONGEST]}\n{text[-_LONGEST:]}"
    sentences = [sentence for sentence in _SENTENCE_END.split(text) if sentence.strip()]
    if len(sentences) <= 2 * _SENTENCES:
        return text
    return "\n".join([*sentences[:_SENTENCES], *sentences[-_SENTENCES:]])
