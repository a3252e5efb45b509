// Renews what changes, every two seconds; says so when the server has gone.
const now = document.getElementById("now");
const gone = document.getElementById("gone");
async function renew() {
  try {
    const answer = await fetch("/now");
    now.innerHTML = await answer.text();
    gone.hidden = true;
  } catch {
    gone.hidden = false;
  }
}
setInterval(renew, 2000);
