"""Signs of talk: how chatter, refusals, thoughts, chat markup and answers begin or sound.

Rows of regular expressions, each line more alternatives, in English first. Where a language is
missing, its talk passes; what is listed must never begin an honest prompt in any language.
"""

from __future__ import annotations

import re
from typing import Literal

TalkKind = Literal["chatter", "declined", "thought", "markup", "answer"]


def _any(block: str) -> str:
    return "(?:" + "|".join(line.strip() for line in block.strip().splitlines()) + ")"


def _opening(block: str) -> re.Pattern[str]:
    """What begins a line, after marks of emphasis and quotation."""
    return re.compile(rf"(?im)^[ \t*_#>\"'“”«»„‘’(\[【¡¿-]*+{_any(block)}")


def _anywhere(block: str) -> re.Pattern[str]:
    return re.compile(f"(?im){_any(block)}")


def _beginning_a_sentence(block: str) -> re.Pattern[str]:
    start = r"(?:^|[.!?:。！？]\s*)(?:(?:okay|ok|alright|so|well|now|hmm+|好的?)[,，.]* ){0,2}"
    return re.compile(f"(?im){start}{_any(block)}")


_ISAY = r"i(?:['’](?:ll|d|m|ve)| (?:can|will|would|could|am|have|understand|see|rewrote))\b"
_PAUSE = (
    r"(?=\s*(?:[!,.:;…—–！，。：、।]|-(?!\w)|\Z|\n)"
    rf"|\s+(?:here|{_ISAY}|let\b|this\b|the (?:re|im)))"
)
_STOP = r"(?=[!！。，,.：:、~～\s]|\Z)"
_IAM = r"(?:i(?:'m|’m| am))"
_IWOULD = r"(?:i(?:'d|’d| would))"
_A = "(?:an? |the |my |your |some |one )?"
_IWILL = r"(?:i(?:'ll|’ll| will| can))"
_LETS = r"(?:let(?:'s|’s| me| us))"
_IMPROVED = (
    "(?:rewritten|revised|improved|rephrased|reworded|enhanced|refined|optimi[sz]ed|updated|edited"
    "|polished|reformulated|better|clearer|alternative)"
)
_ICANNOT = "i (?:can(?:'t|’t|not| not)|could(?:n't| not)|won(?:'t|’t)|will not)"
_WELL = r"(?:okay|ok|alright|so|well|now|hmm+|hm|wait|right)[,.…]* (?:so )?"
_THING = "(?:prompts?|versions?|questions?|requests?|instructions?|query|text|rewrite|task)"
_GREAT = "(?:good|great|excellent|interesting|important|wonderful|fantastic|nice)"
_THIS = rf"\bthis (?:{_IMPROVED} )?(?:rewrite|revision|version|prompt)"

_DECLINED = rf"""
    (?:(?:{_IAM}|we(?:'re|’re| are)) (?:so |very |really |truly )?(?:sorry|afraid)|sorry)\b
    (?:my |our )?apologies\b|i (?:must )?apologi[sz]e|i (?:must|have to|need to) (?:decline|refuse)
    i (?:do not|don't|don’t) feel comfortable
    {_IAM} (?:unable|not able|not allowed|not permitted|not comfortable)\b
    {_ICANNOT} (?:help|assist|provide|answer|fulfil|comply|create|write|generate|support|engage)
    {_ICANNOT} (?:discuss|do (?:that|this))
    this (?:prompt|request|question) (?:violates|is (?:harmful|inappropriate|unsafe|illegal))
    i (?:do not|don't|don’t) have (?:personal|access|the ability|any personal)
    (?:{_IAM} (?:just |only )?|as )an? (?:\w+ )?(?:ai|artificial|language|chatbot|assistant|llm)\b
    (?:unfortunately|regrettably),? (?:i|this|we)\b
    it(?:'s| is) not (?:appropriate|possible|ethical)
    (?:es )?tut (?:mir|uns) (?:sehr )?leid|entschuldigung|leider kann ich
    ich kann (?:\w+ ){{0,3}}nicht
    als (?:ein |eine )?(?:ki|sprachmodell)\b
    (?:je suis )?(?:vraiment )?désolée?|je ne peux pas|malheureusement
    je ne suis pas (?:en mesure|capable|autorisée?)
    en tant qu(?:e |'|’)(?:ia|intelligence|modèle|assistant)
    lo siento|lamento|no puedo|no (?:me )?es posible|lamentablemente
    sinto muito|desculpe|infelizmente|não posso
    como (?:un |una |um |uma )?(?:ia|inteligencia|inteligência|modelo de)\b
    mi dispiace|non posso|purtroppo|come (?:ia|intelligenza|modello)
    het spijt me|helaas|ik kan (?:\w+ ){{0,3}}niet|przykro mi|niestety|przepraszam
    nie mogę (?:\w+ ){{0,2}}(?:pomóc|odpowiedzieć)|üzgünüm|maalesef
    tyvärr|jag är ledsen|jag kan (?:tyvärr )?inte|beklager|desværre|dessverre
    jeg kan (?:desværre )?ikke
    valitettavasti|pahoittelen|olen pahoillani|omlouvám se|bohužel|ľutujem|ospravedlňujem|sajnálom
    sajnos|îmi pare rău|din păcate|nu pot|λυπάμαι|συγγνώμη|δυστυχώς|δεν μπορώ|вибачте|пробачте
    на жаль|я не можу|за съжаление|съжалявам|maaf
    mohon maaf|sayangnya|xin lỗi|rất tiếc|tôi không thể
    ขออภัย|ขอโทษ|מצטער|סליחה|לצערי
    אני לא יכול|متاسفم|متأسفم|متأسفانه|متاسفانه|ببخشید|نمی‌توانم
    извини(?:те)?\b|простите|к сожалению|я не могу
    не могу (?:\w+ ){{0,2}}(?:помочь|ответить|выполнить)|как (?:ии|языковая модель|искусственный)
    (?:很|非常)?抱歉|对不起|對不起|很遗憾|作为(?:一个|一名)?(?:ai|人工智能|语言模型|大语言)|我(?:不能|无法|不會)
    申し訳|すみません|残念ながら|aiとして|죄송|ai로서
    عذر|آسف|أعتذر|لا أستطيع|لا يمكنني|मुझे (?:खेद|माफ़)|क्षमा|माफ़
"""
_THOUGHT = rf"""
    {_WELL}{_LETS} (?:think|see|start|break|consider|analy|re|try|look)|hmm+\b
    {_WELL}(?:(?:i|we) (?:need|should|have|must|think)|the (?:user|prompt))
    let me (?:think|see|start|begin|break|consider|analy|rewrite|rephrase|try|look|work)
    let(?:'s|’s| us) (?:see|break (?:this|it) down|analy[sz]e (?:this|the prompt|the request))
    (?:first(?:ly)?|to (?:begin|start)|next),? (?:i|we)(?:['’](?:ll|m)| (?:will|need|should|must))\b
    (?:i|we) (?:need|have|should|must|will|am going)(?: to)? (?:rewrite|rephrase|reword|think)
    (?:i|we) (?:need|have|should|must|will|want)(?: to)? (?:write|give|add) {_A}(?:\w+ )?hint\b
    i(?:'ll|’ll| will) think\b|the (?:question|query|request) (?:asks\b|is about\b|is asking\b)
    (?:i|we) (?:need|have|should|must|will|want)(?: to)? (?:improve the|clarify the|understand the)
    the (?:original |given |user's )?prompt (?:is|asks|should|needs|wants|says|could)\b
    (?:thinking|thoughts?|reasoning|analysis)\s*:|thinking (?:process|about)
    lass(?:t uns| uns| mich) (?:mal |kurz |erst )?(?:überlegen|nachdenken|sehen|schauen|das)
    zuerst muss ich
    ich (?:muss|sollte) (?:zuerst|erst|überlegen|nachdenken|den prompt)
    laisse[zs]?-moi (?:réfléchir|voir|analyser)|voyons\b|réfléchissons
    (?:tout )?d'abord,? je (?:dois|vais)
    je dois (?:d'abord|réécrire|reformuler|réfléchir)
    déjame (?:pensar|ver|analizar)|veamos\b|primero,? (?:necesito|debo|tengo que|voy a)
    fammi (?:pensare|vedere)|vediamo\b|per prima cosa,? devo
    deixe-me (?:pensar|ver)|vejamos\b|primeiro,? (?:preciso|devo|vou)
    давай(?:те)? (?:подумаем|посмотрим|разбер)|дай(?:те)? (?:мне )?подумать
    (?:сначала|во-первых),? (?:мне|я)\b
    让我(?:想|思考|来|先|看|分析)|首先[，,]?我(?:需要|要|应该|得)|我(?:需要|应该|得)(?:先|改写|重写|思考)
    嗯|好[，,]?(?:用户|我(?:需要|先))|まず[、,]?(?:私|ユーザー|考え)|考えてみ|えーと
    먼저[ ,]*(?:나는|저는|사용자)|생각해 ?보
"""
_CHATTER = rf"""
    (?:sure(?: thing)?|certainly|of course|absolutely|definitely|gladly|okay|ok|alright){_PAUSE}
    (?:all right|got it|understood|no problem|great|good|excellent){_PAUSE}
    (?:very )?{_GREAT} question{_PAUSE}
    (?:what|that(?:'s|’s| is)|this is) (?:such )?an? (?:really |very )?{_GREAT} question{_PAUSE}
    {_IAM} (?:so |really )?glad (?:that )?you asked|let me (?:help|assist)\b
    (?:(?:my|with) pleasure|thank you(?: for (?:your )?\w+)?|you're welcome){_PAUSE}
    thanks(?: for \w+)?{_PAUSE}
    (?:hello|hi|hey)(?: there)?{_PAUSE}|greetings{_PAUSE}
    {_IWOULD} (?:be (?:happy|glad|delighted) to|love to (?:help|assist|rewrite|improve))
    (?:{_IAM} )?happy to help
    {_IWILL} (?:help|rewrite|rephrase|do my best)
    here(?:'s|’s| is| are| you go| you are| it is)\b(?! (?:my|our)\b)|as requested[,:]
    you (?:could|can|might|may) (?:ask|say|write|phrase|try)\b[^.\n]{{0,40}}[:：]
    (?:an?|the|one) {_IMPROVED} (?:way|form) (?:to|of) (?:ask|phras|say|put|word)\w*\b
    (?:your|the) (?:prompt|question|request) (?:could|can|might) be (?:improved|rewritten|rephrased)
    (?:this|below|the following) (?:is|are) {_A}(?:possible )?{_IMPROVED}\b
    {_A}(?:(?:{_IMPROVED}|new|final)[ ,]{{1,2}}){{1,3}}{_THING}?(?: is)?[ *]*[:：]
    (?:[\w-]+ ){{0,2}}(?:prompt|rewrit(?:e|ing)|rephrasing|paraphrase|hint)(?: \w+){{0,2}}[ *]*[:：]
    (?:option|version|rewrite|rephrase) ?\d[ *]*:|rewritten\b|{_IMPROVED}[ *]*:
    (?:rewrite|improve|rephrase|revise|reword) (?:this|the|your|my) (?:user's |original )?prompt\b
    my (?:hint|suggestion|rewrite|rewritten prompt) (?:is|would be)\b
    (?:das ist |was für )?(?:eine )?(?:sehr )?(?:gute|tolle|super|interessante) frage{_PAUSE}
    (?:gerne? (?:helfe|kann|werde)|ich helfe (?:dir|ihnen)) (?:ich|gern)
    (?:c'est une )?(?:très )?(?:bonne|excellente|belle) question{_PAUSE}
    (?:es una |qué |muy )*(?:buena|excelente|gran) pregunta{_PAUSE}
    (?:è una |che )?(?:ottima|buona|bella) domanda{_PAUSE}
    (?:é uma |que )?(?:ótima|boa|excelente) pergunta{_PAUSE}
    (?:dat is een |wat een )?(?:goede|leuke|mooie) vraag{_PAUSE}
    (?:to )?(?:bardzo )?(?:dobre|świetne) pytanie{_PAUSE}
    (?:это )?(?:очень )?(?:отличный|хороший|интересный|прекрасный) вопрос{_PAUSE}
    (?:чудове|гарне|хороше) (?:за)?питання{_PAUSE}|(?:jätte)?bra fråga{_PAUSE}
    (?:godt|bra) spørg?smål{_PAUSE}|hyvä kysymys{_PAUSE}|(?:dobrá|výborná|skvelá) otázka{_PAUSE}
    (?:jó|remek) kérdés{_PAUSE}|(?:bună|excelentă) întrebare{_PAUSE}|καλή ερώτηση{_PAUSE}
    (?:güzel|harika|iyi) (?:bir )?soru{_PAUSE}|pertanyaan (?:yang )?(?:bagus|menarik|baik){_PAUSE}
    câu hỏi (?:rất )?(?:hay|tốt|tuyệt){_PAUSE}|سؤال (?:جيد|ممتاز|رائع|خوبی|عالی){_PAUSE}
    שאלה (?:טובה|מצוינת){_PAUSE}|(?:बहुत )?(?:अच्छा|बढ़िया) (?:सवाल|प्रश्न)(?: है)?{_PAUSE}
    (?:เป็น)?คำถามที่ดี|(?:很|非常)?(?:好|棒)的?问题{_STOP}
    (?:とても)?(?:いい|良い|よい|素晴らしい)(?:ご)?質問(?:です|{_STOP})
    (?:아주 )?좋은 질문(?:입|이|{_STOP})
    (?:klar|natürlich|selbstverständlich|gerne?|sicher|sicherlich|in ordnung|alles klar){_PAUSE}
    (?:bien sûr|certainement|d'accord|avec plaisir|absolument){_PAUSE}
    (?:claro|claro que sí|por supuesto|desde luego|con gusto|vale|com certeza|com prazer){_PAUSE}
    (?:certo|certamente|va bene|volentieri|natuurlijk|zeker|uiteraard){_PAUSE}
    (?:oczywiście|jasne|pewnie){_PAUSE}
    (?:конечно|разумеется|хорошо|с удовольствием|tabii|tabii ki|elbette){_PAUSE}
    (?:självklart|visst|absolut|selvfølgelig|naturligvis|totta kai|tietysti|toki|jistě){_PAUSE}
    (?:samozřejmě|samozrejme|iste|természetesen|persze|desigur|sigur|bineînțeles){_PAUSE}
    (?:φυσικά|βεβαίως|βέβαια|звісно|звичайно|разбира се|tentu|tentu saja|baik){_PAUSE}
    (?:chắc chắn(?: rồi)?|dĩ nhiên|tất nhiên|được rồi|בטח|בהחלט|כמובן|البته|حتما){_PAUSE}
    (?:طبعا|طبعاً|أكيد){_PAUSE}|แน่นอน|ได้เลย|นี่คือ
    (?:här|her) är\b|her er\b|tässä on\b|zde je\b|tady je\b|itt van\b|iată\b|ορίστε\b|ось\b
    berikut (?:ini |adalah )|đây là\b|הנה\b
    (?:بالتأكيد|بالطبع|حسنا|ज़रूर|जरूर|बेशक|ठीक है){_PAUSE}
    hier (?:ist|sind|kommt|hast du|haben sie|is|zijn|heb je)\b|voici\b|voilà\b|ecco\b|oto\b
    вот\b(?! (?:мо[йяеи]|моё|наш))
    işte\b
    aquí (?:está|están|tienes?|tiene|hay|va)\b|aqui (?:está|estão|vai)\b|إليك|यहाँ|यहां
    (?:hier |das ist )?(?:eine?|die) (?:bessere|klarere|verbesserte|überarbeitete|neue)
    (?:deine|ihre|die) frage (?:könnte|kann) (?:besser )?(?:so )?(?:lauten|heißen)
    une meilleure (?:question|formulation|version)|(?:re)?formulation ?[:：]
    una (?:mejor|versión mejorada)\b|pregunta reformulada|uma (?:melhor|versão melhorada)\b
    переформулирован\w*|बेहतर (?:प्रश्न|सवाल|रूप)|السؤال (?:المحسن|المعدل)
    (?:개선된|수정된|다시 쓴) (?:질문|프롬프트)|(?:改写|优化|改进|重写|润色)(?:后|版|过)?[：:]
    更好的(?:问题|提问|问法|说法)|[您你]可以(?:这样|这么)(?:问|说)|(?:書き直し|改善版|修正版|改善後)[：:]
    (?:umgeschrieben|verbessert|überarbeitet|neu formuliert|umformuliert)\w*\b.{{0,20}}[:：]
    (?:version|question|requête) (?:réécrite?|améliorée?|reformulée?)
    (?:versión|pregunta) (?:mejorada|reescrita|revisada)|улучшенн\w+|переписанн\w+
    (?:[当當]然(?:可以)?|好的|没问题|沒問題){_STOP}|(?:以下|下面)[是为](?!我)|这是|這是|(?:改写|重写|改进|优化|修改)(?:后|过)?的
    (?:もちろん|了解)(?:です|{_STOP})|(?:承知|了解)(?:しま|いた)|わかりました|分かりました|以下は|以下が|以下に
    こちらが|こちらは|물론(?:입|이|[!,.])|알겠습니다|다음은|여기에? (?:있|다시|수정|개선|예시)
"""
_ANSWER = r"""
    (?:yes|yeah|yep|no|nope|true|false|ja|nein|nee|oui|non|sí|sì|não|sim)(?=\s*(?:[!,.:;—–]|\Z))
    (?:да|нет|evet|hayır|tak|nie)(?=\s*(?:[!,.:;—–]|\Z))|(?:是的|不是|对|不|はい|いいえ|네|아니요)[，、,.。！!]
    the (?:\w+ )?answer (?:is|to|would)\b|die antwort (?:ist|lautet)|答案是|答えは|정답은
    la (?:réponse|respuesta|risposta) (?:est|es|è)\b|a resposta é
    (?:answer|ans|a|response|solution|result|output|antwort|lösung|réponse)[ *]*[:：]
    (?:respuesta|risposta|resposta|antwoord|ответ|答案|回答|答|答え|답|정답)[ *]*[:：]
    i (?:think|believe|would (?:say|recommend|suggest|argue)|recommend|suggest)\b|it depends\b
    i(?:'d|’d) (?:say|recommend|suggest)\b|in my (?:opinion|view)|ich (?:denke|glaube|empfehle)\b
    je (?:pense|crois|recommande)\b|creo que|yo (?:creo|diría)|penso che|я думаю|我认为|我觉得|私は
    (?:sehr geehrte\w*|estimad[oa]s?|prezad[oa]|уважаем\w+) (?:\w+|\[)|尊敬的|亲爱的
    dear [^\n,.:;!?]{1,40}(?:[,!]|:?[ \t]*(?:\n|\Z))|to whom it may concern
    (?:liebe[rs]?|chère?|gentile|car[oa]|beste) [^\n,.:;!?]{1,40}[,!][ \t]*(?:\n|\Z)
    (?:subject|betreff|objet|asunto|oggetto|assunto|тема)[ *]*:
    once upon a time|es war einmal|il était une fois|érase una vez|c'era una volta|era uma vez
    (?:verse|chorus|title|chapter|scene|act|step|day|ingredients|abstract)(?: \d+)?[ *]*:
"""
_CODE_OR_LIST = re.compile(
    r"(?m)^(?:1[ \t]*[-–.):][ \t]|[-*•–][ \t]|```|~~~|<!DOCTYPE|<html|<\?(?:php|xml)|<svg|#include"
    r"|import \w+$|from \w+ import|(?:async )?def \w+\(|function \w+\(|class \w+[:({]|public class "
    r"""|SELECT .{1,200} FROM |\{\s{0,9}["'\w]|\[\s{0,9}["'{])"""
)
_THOUGHT_TAG = """
    </?(?:think|thinking|thought|reasoning|reflection|analysis|scratchpad)>|◁/?think▷|\\[/?THINK\\]
"""
# In the middle of a sentence it is what an app does: "that replies when the user asks".
_ABOUT_THE_USER = r"""
    (?:the )?user(?:['’]s)? (?:prompt|request|question|query|message|wants?|asks|asked|is asking)\b
    der (?:nutzer|benutzer) (?:möchte|will|fragt|bittet)\b
    l'utilisateur (?:veut|demande|souhaite)\b
    el usuario (?:quiere|pide|pregunta)\b|l'utente (?:vuole|chiede)\b
    o usuário (?:quer|pede)\b
    пользователь (?:хочет|просит|спрашивает)\b|用户(?:想|要|希望|问|请求)
    ユーザーは[^。\n]{0,40}(?:求め|尋ね|質問|知りた|希望|依頼)
"""
_MARKUP = r"""
    <\|[^|<>\n]{1,40}\|>|<｜[^｜<>\n]{1,40}｜>|</?(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|\A\s*<s>|</s>\s*\Z
    </?(?:\w+_)?(?:prompt|rewrite|rewritten|output|answer|response|question|query)(?:_\w+)?>
    <(?:[be]os|unk|pad|end_of_utterance)>|</?tool_(?:call|response)s?>
    \[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]
    ^[#* \t]{0,6}(?:user|assistant|system|human|ai|bot|model|instruction|response)\b[ *]{0,3}:
    (?:\A|\n[ \t]*\n)[#* \t]{0,6}(?:user|assistant|system|model)[* \t]*\n
    ^assistant[ \t]*\n
"""
_FAREWELL = rf"""
    \bnot something i can (?:help|assist|do)\b|\bthis is (?:clearer|better) because\b
    \bi (?:changed|fixed|corrected|adjusted) (?:the|your) (?:case|capital|grammar|spell|punct|word)
    \blet me know (?:if|what|how|when)\b|\b(?:i )?hope (?:this|that|it) helps\b
    \bwould you like me to\b|\bis (?:the|my|an?) {_IMPROVED} (?:prompt|version|question)\b
    \((?:note: )?i(?:'ve|’ve| have)? (?:just )?(?:added|kept|changed|removed|replaced|made)\b
    \bfeel free to (?:ask|reach|let me|contact|modify|adjust)\b|\banything else (?:i can|you)\b
    \bi(?:'ve|’ve| have)? (?:rewrote|rewritten|rephrased|revised|improved|reworded|clarified)\b
    \b(?:note|explanation)[ *]*: (?:i|i've|i have) (?:\w+ )?(?:made|kept|changed|added|removed)\b
    ^[*_#(\[ ]*(?:explanation|changes(?: made)?|what (?:i )?changed|improvements)[ *_]*:[ *_]*
    \b(?:i'm|i'll be|i’m|i am) (?:happy|here) to (?:help|assist)\b
    {_THIS} (?:is|makes|adds|clarifies|provides|ensures|keeps|specifies|asks|focuses)\b
    \blass (?:es )?mich wissen\b|\bich hoffe,? das hilft\b|\bn'hésite[zs]? pas à\b
    \bespero que (?:esto )?(?:te |le )?ayude\b|希望(?:这|对|對)?(?:你|您)?.{{0,4}}有(?:所)?帮助
    如果(?:您|你)还?有(?:任何|其他)
"""

OPENINGS: tuple[tuple[TalkKind, re.Pattern[str]], ...] = (
    ("declined", _opening(_DECLINED)),
    ("thought", _opening(_THOUGHT)),
    ("chatter", _opening(_CHATTER)),
    ("answer", _opening(_ANSWER)),
    ("answer", _CODE_OR_LIST),
)
"""What begins a text. In a prompt it may begin any line."""
SIGNS: tuple[tuple[TalkKind, re.Pattern[str]], ...] = (
    ("thought", _anywhere(_THOUGHT_TAG)),
    ("markup", _anywhere(_MARKUP)),
    ("thought", _beginning_a_sentence(_ABOUT_THE_USER)),
    ("chatter", _anywhere(_FAREWELL)),
)
"""What stands anywhere in a text."""
