"""Rewriters that talk are told from those that rewrite."""

from __future__ import annotations

import pytest

from alignpro_lite.prompter.prompter import Rewrite
from alignpro_lite.rewriting.refusal import refusal_of
from alignpro_lite.rewriting.spans import protect
from alignpro_lite.rewriting.talk import is_answer, talk_in

CAPITAL = "What is the capital of France?"
SAFE = "How do I stay safe online?"


def kind_of(prompt, output):
    """Why a rewrite, that is used as the prompter wrote it, is refused; None if it is not."""
    rewrite = Rewrite(output.strip(), output, (1,), -1.0, -1.0, "stop")
    refusal = refusal_of(protect(prompt), rewrite)
    return refusal.kind if refusal else None


@pytest.mark.parametrize(
    "output",
    [
        "Sure! Here is a better prompt: How can I stay safe online?",
        "Certainly, how can one stay safe online?",
        "Of course. How do I stay safe online?",
        "Okay! How do I stay safe online?",
        "Here's the rewritten prompt:\n\nHow do I stay safe online?",
        "**Rewritten prompt:** How do I stay safe online?",
        "Improved version: How do I stay safe online?",
        "Rewrite this prompt:\nHow do I stay safe online?",
        "I'd be happy to help! How do I stay safe online?",
        "How do I stay safe online? I hope this helps!",
        "How do I stay safe online?\n\nThis version is clearer and more specific.",
        "How do I stay safe online? Let me know if you want changes.",
        "Natürlich! How do I stay safe online?",
        "Voici une version : How do I stay safe online?",
        "¡Claro! How do I stay safe online?",
        "Självklart! How do I stay safe online?",
        "Звісно! How do I stay safe online?",
        "Jistě, how do I stay safe online?",
        "Tentu! How do I stay safe online?",
        "Thank you for asking! How do I stay safe online?",
        "Improved: How do I stay safe online?",
        "I rewrote your prompt: How do I stay safe online?",
        "How do I stay safe online? (Note: I made it clearer.)",
        "How do I stay safe online?\n\n**Changes made:** clearer words.",
        "当然！How do I stay safe online?",
        "もちろんです。How do I stay safe online?",
        "Конечно! How do I stay safe online?",
    ],
)
def test_chatter_around_a_rewrite_is_refused(output):
    """Regression: only the length of a rewrite and its spans were looked at."""
    assert kind_of(SAFE, output) == "chatter"


@pytest.mark.parametrize(
    "output",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot provide information on staying safe online.",
        "As an AI language model, I do not go online.",
        "Sorry, how do I stay safe online?",
        "Unfortunately, I am not able to rewrite this.",
        "Es tut mir leid, das kann ich nicht.",
        "Je suis désolé, mais je ne peux pas.",
        "Tyvärr kan jag inte hjälpa till.",
        "Beklager, jeg kan ikke hjelpe.",
        "Omlouvám se, ale nemohu pomoci.",
        "На жаль, я не можу допомогти.",
        "Maaf, saya tidak bisa membantu.",
        "מצטער, אני לא יכול לעזור.",
        "ขออภัย ฉันช่วยไม่ได้",
        "Lo siento, no puedo ayudar con eso.",
        "抱歉，我无法回答这个问题。",
        "申し訳ありませんが、お答えできません。",
    ],
)
def test_a_prompter_that_declines_is_refused(output):
    assert kind_of(SAFE, output) == "declined"


@pytest.mark.parametrize(
    "output",
    [
        "<think>The user wants safety.</think> How do I stay safe online?",
        "Let me think about how to stay safe online.",
        "Okay, so the user wants to know how to stay safe online?",
        "First, I need to find out what safe means online.",
        "Hmm, how do I stay safe online?",
        "I need to rewrite how to stay safe online.",
        "The user is asking how to stay safe online.",
        "[THINK]How do I stay safe online?[/THINK]",
        "让我想想，如何在网上保持安全？",
    ],
)
def test_a_thought_is_refused(output):
    assert kind_of(SAFE, output) == "thought"


@pytest.mark.parametrize(
    "output",
    [
        "How do I stay safe online?<|im_end|>",
        "assistant\nHow do I stay safe online?",
        "<|im_start|>user\nHow do I stay safe online?",
        "How do I stay safe online?\nAssistant: Use strong passwords.",
        "[INST] How do I stay safe online? [/INST]",
        "How do I stay safe online?</s>",
        "### Instruction: How do I stay safe online?",
        "<｜User｜>How do I stay safe online?",
    ],
)
def test_chat_markup_is_refused(output):
    assert kind_of(SAFE, output) == "markup"


@pytest.mark.parametrize(
    ("prompt", "output"),
    [
        (CAPITAL, "Paris."),
        (CAPITAL, "The capital of France is Paris."),
        (CAPITAL, "The answer is Paris, the capital of France."),
        (CAPITAL, "Answer: Paris"),
        (CAPITAL, "What is the capital of France? The capital of France is Paris."),
        ("Is 7 prime?", "Yes, 7 is prime."),
        (SAFE, "1. Use strong passwords to stay safe online.\n2. Avoid phishing."),
        (SAFE, "Use strong passwords, and stay away from links you don't know."),
        (SAFE, "To stay safe online, keep your software up to date."),
        (SAFE, "I recommend that you stay safe online with a password manager."),
        ("Write a function that adds numbers", "def add(a, b):\n    return a + b"),
        ("Write a function that adds numbers", "```python\nnumbers = sum\n```"),
        ("Write a mail to my landlord", "Dear landlord,\n\nthe heater is broken."),
        ("Write a story about a fox", "Once upon a time there was a fox who liked a story."),
        ("Explain photosynthesis", "Photosynthesis is how plants turn light into sugar."),
        ("Was ist die Hauptstadt von Frankreich?", "Die Hauptstadt von Frankreich ist Paris."),
        ("Quelle est la capitale de la France ?", "La capitale de la France est Paris."),
        ("¿Cuál es la capital de Francia?", "La capital de Francia es París."),
        ("Какая столица Франции?", "Столица Франции — Париж."),
        ("法国的首都是什么？", "法国的首都是巴黎。"),
        ("Jaka jest stolica dużej Francji?", "Paryż."),
    ],
)
def test_an_answer_is_refused(prompt, output):
    """Regression: an answer in place of the question was sent to the target."""
    assert kind_of(prompt, output) == "answer"


@pytest.mark.parametrize(
    ("prompt", "output"),
    [
        (CAPITAL, "Name the capital of France."),
        (CAPITAL, "Which city is the capital of France? Answer in one word."),
        (SAFE, "Please explain how to stay safe online, with examples."),
        (SAFE, "In three paragraphs, describe how I can stay safe online."),
        (SAFE, "I want to stay safe online. What should I do first?"),
        (SAFE, "List the most important steps to stay safe online"),
        (
            "bubble sort list of int in python",
            "Write a Python function to bubble sort a list of int.",
        ),
        ("I can't sleep. What can I do?", "I can't sleep at night. What can I do against it?"),
        ("Reply to: Sure! Here is the file.", "Write a reply to: Sure! Here is the file."),
        ("Sure! Here is my text. Fix it.", "Sure! Here is my text. Please fix it."),
        ("- cats\n- dogs\nWhich is nicer?", "- cats\n- dogs\nWhich of them is nicer?"),
        ("User: hi\nAssistant: hello\nContinue.", "User: hi\nAssistant: hello\nPlease continue."),
        ("Was ist die Hauptstadt von Frankreich?", "Nenne die Hauptstadt von Frankreich."),
        ("Co to jest fotosynteza roślin?", "Wyjaśnij, czym jest fotosynteza roślin."),
        ("请解释光合作用", "请用三句话解释什么是光合作用。"),
        ("Schreib ein Gedicht über den Herbst.", "Verfasse ein Gedicht über den Herbst."),
        ("Qu'est-ce que le bonheur ?", "Veuillez expliquer ce qu'est le bonheur."),
        ("¿Qué es la felicidad?", "Explícame la felicidad con ejemplos."),
        ("Escreva um poema", "Componha um poema curto sobre o mar."),
        ("Напиши стих", "Сочини короткий стих о море."),
        ("Γράψε ένα ποίημα. Τι ρίμα έχει;", "Γράψε ένα ποίημα και πες τι ρίμα έχει;"),
        ("写一首诗", "创作一首关于大海的短诗。"),
        ("詩を書いて", "海をテーマに短い詩を書きなさい。"),
        ("What is luck?", "Unpack the idea of luck."),
        ("What is luck?", "I'd love to learn about luck."),
        ("Tips for interviews", "Useful tips for interviews, with examples"),
        ("Explain okapis", "Explain, for children, how okapis live and what they eat"),
    ],
)
def test_an_honest_rewrite_is_not(prompt, output):
    assert kind_of(prompt, output) in (None, "span")
    assert talk_in(prompt, output) is None
    assert not is_answer(prompt, output)


@pytest.mark.parametrize(
    "hint",
    [
        "Write a thorough explanation of the most important steps, each in a full paragraph.",
        "Be concise.",
        "Use simple words and examples.",
        "The answer should be short.",
        "Let's think step by step.",
        "Focus on what is most important.",
    ],
)
def test_a_hint_is_no_talk(hint):
    assert talk_in(SAFE, hint) is None
    assert not is_answer(SAFE, f"{SAFE}\n\n{hint}")


@pytest.mark.parametrize(
    "output",
    [
        "Good question! How do I stay safe online?",
        "What a great question! How do I stay safe online?",
        "That's a really interesting question. How do I stay safe online?",
        "I'm glad you asked. How do I stay safe online?",
        "Let me help you with that. How do I stay safe online?",
        "My hint would be: How do I stay safe online?",
        '"How do I stay safe online?" is the improved prompt.',
        'How do I stay safe online, in detail?\n\n(I added "in detail".)',
        "Gute Frage! How do I stay safe online?",
        "Gerne helfe ich dir. How do I stay safe online?",
        "C'est une excellente question. How do I stay safe online?",
        "¡Buena pregunta! How do I stay safe online?",
        "Ottima domanda! How do I stay safe online?",
        "Ótima pergunta! How do I stay safe online?",
        "Goede vraag! How do I stay safe online?",
        "Dobre pytanie! How do I stay safe online?",
        "Хороший вопрос! How do I stay safe online?",
        "Bra fråga! How do I stay safe online?",
        "Güzel soru! How do I stay safe online?",
        "Câu hỏi hay! How do I stay safe online?",
        "سؤال جيد! How do I stay safe online?",
        "बहुत अच्छा सवाल है! How do I stay safe online?",
        "好问题！How do I stay safe online?",
        "とても良い質問ですね！How do I stay safe online?",
        "좋은 질문입니다! How do I stay safe online?",
    ],
)
def test_praise_of_the_question_and_offers_of_help_are_chatter(output):
    """Regression: of all praise only "Great question!" was known, and in English only."""
    assert kind_of(SAFE, output) == "chatter"


@pytest.mark.parametrize(
    ("kind", "output"),
    [
        ("declined", "I have to decline this request."),
        ("declined", "We're sorry, but this violates our policy."),
        ("declined", "I do not feel comfortable with it."),
        ("declined", "Es tut uns leid, das geht nicht."),
        ("declined", "Je ne suis pas en mesure de répondre."),
        ("declined", "No me es posible responder."),
        ("declined", "Nie mogę w tym pomóc."),
        ("declined", "Извини, не могу помочь."),
        ("thought", "The question is about safety online."),
        ("thought", "We need to write a hint about how to stay safe online."),
        ("thought", "I'll think about how to stay safe online."),
        ("thought", "Lass mich kurz nachdenken."),
        ("markup", "[SYSTEM_PROMPT] How do I stay safe online? [/SYSTEM_PROMPT]"),
        ("markup", "[AVAILABLE_TOOLS] How do I stay safe online?"),
        ("markup", "<tool_call>{}</tool_call> How do I stay safe online?"),
        ("markup", "How do I stay safe online?<pad><pad>"),
    ],
)
def test_more_that_is_no_rewrite_is_refused(kind, output):
    """Regression: these ways to decline and to think aloud, and this markup, were used."""
    assert kind_of(SAFE, output) == kind


@pytest.mark.parametrize(
    ("prompt", "output"),
    [
        (SAFE, "Sure-footed advice only: how do I stay safe online?"),
        (SAFE, "Of course I use Windows: how do I stay safe online?"),
        ("我该如何安全上网？", "好的例子最重要：请说明如何安全上网。"),
        ("安全なパスワードを教えて", "了解しやすい言葉で安全なパスワードを説明してください。"),
        ("안전한 비밀번호를 알려줘", "여기서는 안전한 비밀번호만 설명해 주세요."),
        ("Was ist Liebe?", "Liebe und Freundschaft: Erkläre, was Liebe ist."),
        ("Tipps für das Netz", "Beste Tipps für das Netz"),
        ("Who is Cher?", "Cher the singer: who is she?"),
        ("Write about dear friends", "Dear friends: write about them."),
        ("What should I ask?", "What good question should I ask first?"),
    ],
)
def test_words_that_only_begin_like_talk_are_not(prompt, output):
    """Regression: "sure-footed" began like "sure", and "Beste Tipps" like a letter in Dutch."""
    assert kind_of(prompt, output) is None


@pytest.mark.parametrize(
    ("prompt", "hint"),
    [
        (SAFE, "Examples from the Victorian era only."),
        (SAFE, "For my son, simple words."),
        (SAFE, "Stories of the Cold War only."),
        (SAFE, "Well-known tools are fine, but say why each one helps."),
        (SAFE, "This is for school, so keep it simple."),
        ("Wie bleibe ich online sicher?", "Mit Beispielen, wenn es passt."),
        ("Wie bleibe ich online sicher?", "Hier geht es vor allem um mein Handy."),
    ],
)
def test_a_hint_with_a_word_that_states_in_another_language_is_no_answer(prompt, hint):
    """Regression: English son, era and war and German es were taken for verbs, and what follows
    "but" or "so" for no request."""
    assert not is_answer(prompt, f"{prompt}\n\n{hint}")


@pytest.mark.parametrize(
    ("prompt", "hint"),
    [
        ("Write a poem.", "Follow these rules:\n- The title is in capital letters."),
        ("Écris un poème.", "Respecte ces règles :\n- Le titre est entre chevrons."),
        ("Schreibe ein Gedicht.", "Halte dich an diese Regeln:\n- Der Titel ist kurz."),
        ("Escribe un poema.", "Cumple estas reglas:\n- El título es el de la primera línea."),
        ("Escreva um poema.", "Siga estas regras:\n- O título é curto."),
        ("Scrivi una poesia.", "Rispetta queste regole:\n- Il titolo è breve."),
        ("Напиши стихотворение.", "Соблюдай эти правила:\n- Это восемь строк."),
        ("请写一首诗。", "请遵守这些规则：\n- 标题是四个字。"),
    ],
)
def test_rules_that_say_how_an_answer_is_are_no_answer(prompt, hint):
    """Regression: a list of rules counted as a statement where no verb of English directs it."""
    assert not is_answer(prompt, f"{prompt}\n\n{hint}")


@pytest.mark.parametrize(
    "hint", ["Online safety is the practice of protecting data.", "Passwords are the key to it."]
)
def test_a_hint_that_answers_is_refused(hint):
    assert is_answer(SAFE, f"{SAFE}\n\n{hint}")


@pytest.mark.parametrize(
    "prompt",
    ["", "hi", "Sure!", "Answer: 5", "1. a\n2. b", "I'm sorry, but I can't.", "<think>", "Paris."],
)
def test_every_prompt_is_a_rewrite_of_itself(prompt):
    assert talk_in(prompt, prompt) is None
    assert not is_answer(prompt, prompt)


def test_long_talk_takes_no_long_time():
    text = "okay, so " * 20_000
    assert talk_in(text, text) is None
    assert not is_answer(text, text)


def test_the_reason_shows_what_was_said():
    rewrite = Rewrite("x", "Sure! Here is a prompt", (1,), -1.0, -1.0, "stop")
    refusal = refusal_of(protect(SAFE), rewrite)
    assert refusal is not None
    assert refusal.reason == "the prompter talked about the rewrite: Sure"


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("i dont have access to my files", "I don't have access to my files. Why?"),
        ("unable to log in, why", "I am unable to log in. Why?"),
        ("how come i can't create a folder", "I can't create a folder. Why?"),
        ("cant create file linux why", "I can't create a file in Linux. Why?"),
        ("ayuda no puedo dormir", "No puedo dormir. ¿Qué puedo hacer?"),
        ("aidez moi je ne peux pas dormir", "Je ne peux pas dormir. Que faire ?"),
        ("hilfe ich kann nicht schlafen", "Ich kann nicht schlafen. Was hilft?"),
        ("помоги, я не могу уснуть", "Я не могу уснуть. Что делать?"),
        ("怎么办我无法入睡", "我无法入睡，怎么办？"),
        ("لماذا لا أستطيع النوم", "لا أستطيع النوم. ما السبب؟"),
        ("怎么用英语说对不起", "“对不起”用英语怎么说？"),
        ("日本語で申し訳ないの使い方", "申し訳ないの使い方を教えてください。"),
        ("расскажи мне про чёрные дыры", "Объясните, что такое чёрная дыра."),
        (
            "как быстро выучить испанский язык",
            "Какие есть быстрые способы изучения испанского языка?",
        ),
        ("opowiedz mi o czarnych dziurach", "Wyjaśnij, czym jest czarna dziura."),
        ("kerro minulle mustista aukoista", "Mitä mustat aukot ovat?"),
        (
            "write a chatbot in python",
            "Write a chatbot in Python that replies when the user asks something.",
        ),
        ("write a chatbot in python", "Write a chatbot in Python that stores the user's message."),
        ("flask login example", "Show a Flask login example that handles the user request."),
        ("build a todo app", "Build a to-do app in which the user wants to add tasks."),
        ("写一个用户故事", "写一个用户故事，说明用户想登录。"),
        (
            "ユーザー登録の仕様",
            "ユーザー登録の仕様を書いてください。ユーザーはメールで登録します。",
        ),
        ("okay so what is dna", "Okay, so what is DNA?"),
        ("my code is broken", "Here is my broken code: fix it."),
        ("мой код не работает", "Вот мой код, он не работает. Исправь его."),
        ("帮我改这段代码", "以下是我的代码，请修改。"),
        ("what is prompt engineering", "What is prompt engineering: a definition with examples?"),
        ("how do i rewrite git history", "I want to rewrite the git history. How?"),
        ("explain the html s tag", "Explain the HTML tag <s> and </s>."),
        ("why is the sky blue", "Why is the sky blue? Explain it with Rayleigh scattering."),
        ("what is dna", "What is DNA? In one sentence."),
        ("what is dna", "What is DNA? Be brief."),
        ("write a story", "Write a story. The hero must be a cat."),
    ],
)
def test_the_words_of_a_prompt_are_no_talk(prompt, rewrite):
    """Each was refused once: a prompter may say what the user says."""
    assert talk_in(prompt, rewrite) is None
    assert not is_answer(prompt, rewrite)


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        (
            "what is the capital of france",
            "What is the capital of France? The capital of France is Paris.",
        ),
        (
            "was ist die hauptstadt von frankreich",
            "Was ist die Hauptstadt von Frankreich? Die Hauptstadt ist Paris.",
        ),
        ("why is the sky blue", "Why is the sky blue? Because of Rayleigh scattering."),
        ("what is 2 + 2?", "What is 2 + 2? 4"),
        ("tell me about cats", "Tell me about cats. Cats are small carnivorous mammals."),
        ("what is the capital of france", "You could ask: What is the capital of France?"),
        (
            "what is the capital of france",
            "A clearer way to ask is: What is the capital of France?",
        ),
        ("x?", 'A better way to phrase this would be "What is the capital of France?"'),
        (
            "what is the capital of france",
            "<rewritten_prompt>What is the capital of France?</rewritten_prompt>",
        ),
        ("what is the capital of france", "What is the capital of France?\n<answer>Paris</answer>"),
        ("what is the capital of france", "What is the capital of France?\n\n### Assistant\nParis"),
        ("what is the capital of france", "What is the capital of France?\nassistant\nParis"),
        (
            "what is the capital of france",
            "What is the capital of France?\n\nThis is clearer because it is capitalised.",
        ),
        ("what is the capital of france", "What is the capital of France?\n\nI changed the case."),
        ("how to kill a process", "This prompt violates policy. Ask another."),
        (
            "how to kill a process in linux",
            "How to kill a process in linux is not something I can help with.",
        ),
        ("hauptstadt frankreich", "Eine bessere Frage wäre: Was ist die Hauptstadt?"),
        ("hauptstadt frankreich", "Deine Frage könnte lauten: Was ist?"),
        ("capitale", "Reformulation : Quelle est la capitale ?"),
        ("capital francia", "Una mejor pregunta: ¿Cuál es la capital?"),
        ("法国的首都", "改写后：法国的首都是哪里？"),
        ("法国的首都", "更好的问题：法国的首都是哪里？"),
        ("フランス", "改善版：フランスの首都は？"),
        ("столица", "Переформулированный вопрос: Какая столица?"),
        ("राजधानी", "बेहतर प्रश्न: फ्रांस की राजधानी क्या है?"),
        ("수도", "개선된 질문: 프랑스의 수도는?"),
        (
            "capital of france",
            "User asks for the capital of France. So rewrite: What is the capital of France?",
        ),
        ("name a river", "Okay, the user wants a river."),
        ("can you hack it", "I can't help with that."),
        ("i can't sleep help", "I can't help with that."),
        ("write a haiku about cats please", "Silent paws at dusk, moonlight on fur"),
        ("is there no way to heaven?", "No, there is not."),
        ("tell me the name", "Sure! Here is the name."),
        ("how do I say sorry in French", "Sorry, I can't help with that."),
        ("what do you think of cats", "<think>They ask of cats.</think> What are cats?"),
        ("is it okay to lie", "Okay, here is a better prompt: When is it okay to lie?"),
        ("okay is it okay to lie", "Okay, here is a better prompt: When is it okay to lie?"),
        ("tell me a great joke", "Great! Tell me a joke."),
        ("怎么用英语说对不起", "对不起，我不能回答。"),
    ],
)
def test_talk_in_other_words_is_found(prompt, rewrite):
    """Each passed once, or would if the words of a prompt excused more than themselves."""
    assert talk_in(prompt, rewrite) or is_answer(prompt, rewrite)


@pytest.mark.parametrize(
    "said",
    [
        "The capital of France is Paris; it lies on the Seine.",
        "The capital of France is Paris;",
    ],
)
def test_a_semicolon_asks_nothing(said):
    """A Greek question mark in the source had become one, so that such an answer was a rewrite."""
    prompt = "What is the capital of France?"
    assert is_answer(prompt, said)
    assert is_answer(prompt, f"{prompt}\n\n{said}")


@pytest.mark.parametrize("mark", [";", "\u037e"])
def test_a_greek_question_is_one(mark):
    assert not is_answer("Πού είναι η Αθήνα;", f"Σε ποια χώρα είναι η Αθήνα{mark}")
