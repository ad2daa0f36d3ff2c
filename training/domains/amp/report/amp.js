// Blind comparison: A and B are "before" and "after" in an order that changes after every answer.
for (const sound of document.querySelectorAll(".amp-sound")) {
  const player = side => sound.querySelector(`audio[data-side="${side}"]`);
  const status = sound.querySelector('.amp-blind [role="status"]');
  let after = Math.random() < 0.5 ? "A" : "B", right = 0, answers = 0;
  const stop = () => { for (const one of document.querySelectorAll("audio")) one.pause(); };
  for (const button of sound.querySelectorAll("[data-blind]")) {
    button.addEventListener("click", () => {
      const one = player(button.dataset.blind === after ? "after" : "before");
      stop();
      one.currentTime = 0;
      one.play();
    });
  }
  for (const button of sound.querySelectorAll("[data-guess]")) {
    button.addEventListener("click", () => {
      stop();
      answers += 1;
      right += button.dataset.guess === after ? 1 : 0;
      status.textContent = `${button.dataset.guess === after ? "Right" : "Wrong"}: ${right} of ${answers} right so far.`;
      after = Math.random() < 0.5 ? "A" : "B";
    });
  }
}
