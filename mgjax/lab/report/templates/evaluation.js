// Each file stands on the page once; the other places that show it take it from there.
// Videos play while they are in sight. A click stops them, as does a preference for less motion.
for (const each of document.querySelectorAll('[data-of]'))
  each.src = document.getElementById(each.dataset.of).src
const box = document.getElementById('moving'), videos = document.querySelectorAll('video.loop')
const turn = v => { if (v.near && box.checked) v.play().catch(() => {}); else v.pause() }
if (box) {
  box.checked = !matchMedia('(prefers-reduced-motion:reduce)').matches
  box.onchange = () => videos.forEach(turn)
  const watch = new IntersectionObserver(all => {
    for (const { target, isIntersecting } of all) { target.near = isIntersecting; turn(target) }
  })
  videos.forEach(v => { watch.observe(v); v.onclick = () => v.paused ? v.play() : v.pause() })
}
